-- configure: an operator sets a queue's bound; producers that wait for room are woken at once.
-- KEYS    1 meta  2 room
-- ARGV    1 maxsize ('': as it is)  2 maxbytes ('': as it is)  3 headroom, jobs ('': as it is; -1: none)
--         4 what a put does that finds no room ('': as it is)
-- returns {OK} | {NEWER}
-- oom     allowed
-- callers Broker.configure
local meta, room = unpack(KEYS)
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
redis.call('HDEL', meta, 'wanted')
if ARGV[1] ~= '' then redis.call('HSET', meta, 'maxsize', ARGV[1]) end
if ARGV[2] ~= '' then redis.call('HSET', meta, 'maxbytes', ARGV[2]) end
if ARGV[3] == '-1' then
  redis.call('HDEL', meta, 'headroom')
elseif ARGV[3] ~= '' then
  redis.call('HSET', meta, 'headroom', ARGV[3])
end
if ARGV[4] ~= '' then redis.call('HSET', meta, 'full', ARGV[4]) end
ring(room)
return {OK}
