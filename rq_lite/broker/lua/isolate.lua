-- isolate: take one suspect, a job whose consumers or workers died repeatedly, for a consumer that runs
--          nothing else.
-- KEYS    1 meta  2 consumers  3 suspects  4 inflight:<consumer>
-- ARGV    1 consumer  2 bytes of the job at most
-- returns {OK | NOLEASE | NEWER, tag (0: no suspect), job (nil: it is larger, `piece` reads it)}
-- oom     allowed
-- callers Broker.isolate
local meta, consumers, suspects, inflight = unpack(KEYS)
local state = redis.call('HMGET', meta, 'paused', 'format')
if newer(state[2]) then return {NEWER, 0, ''} end
local now, lease = now_ms(), redis.call('ZSCORE', consumers, ARGV[1])
if not lease or tonumber(lease) <= now then return {NOLEASE, 0, ''} end
if state[1] == '1' then return {OK, 0, ''} end
local entry = redis.call('RPOP', suspects)
if not entry then return {OK, 0, ''} end
redis.call('HINCRBY', meta, 'suspects', -1)
entry = turn(meta, entry, now)
if not entry then
  local prefix = prefix_of(meta)
  ring_drained(prefix .. 'pending', prefix .. 'scheduled', meta, prefix .. 'drained')
  return {OK, 0, ''}
end
local tag = redis.call('HINCRBY', meta, 'tag', 1)
redis.call('HSET', inflight, tag, entry)
if entry:byte(1) ~= 123 then note_taken(prefix_of(meta), entry, ARGV[1], tag, now) end
redis.call('HINCRBY', meta, 'inflight', 1)
return {OK, tag, #entry <= tonumber(ARGV[2]) and entry}
