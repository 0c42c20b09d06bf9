-- declare: make a queue known with the bound that the program names. The bound in Redis changes only when the
--          program names another number than last time: what an operator has set meanwhile stands.
-- KEYS    1 meta
-- ARGV    1 maxsize ('': not named)  2 maxbytes ('': not named)  3 maxsize where nobody names one  4 maxbytes likewise
-- returns {OK, maxsize, maxbytes}
-- oom     refused, but a queue that is known as it stands needs no write: a worker can start
-- callers Broker.declare
local meta = KEYS[1]
local function bound(field, named, default)
  if named ~= '' and redis.call('HGET', meta, 'declared_' .. field) ~= named then
    redis.call('HSET', meta, 'declared_' .. field, named, field, named)
  elseif redis.call('HEXISTS', meta, field) == 0 then
    redis.call('HSET', meta, field, default)
  end
  return tonumber(redis.call('HGET', meta, field))
end
return {OK, bound('maxsize', ARGV[1], ARGV[3]), bound('maxbytes', ARGV[2], ARGV[4])}
