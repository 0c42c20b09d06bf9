-- plan: write, replace or remove a schedule, if its definition is still what the caller knows.
-- KEYS    1 rq-lite:{schedules}  2 rq-lite:{schedules}:due  3 rq-lite:{schedules}:last
-- ARGV    1 name  2 definition as the caller knows it ('': none)  3 definition to write ('': remove it)
--         4 its next slot, ms ('': as it is)
-- returns {OK} | {MOVED}
-- oom     refused
-- callers Broker.plan
local name = ARGV[1]
if (redis.call('HGET', KEYS[1], name) or '') ~= ARGV[2] then return {MOVED} end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
else
  redis.call('HSET', KEYS[1], name, ARGV[3])
  if ARGV[4] ~= '' then redis.call('ZADD', KEYS[2], ARGV[4], name) end
end
return {OK}
