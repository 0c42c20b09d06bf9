-- bury: move deliveries that are given up to the dead set, each with a report; the set is capped, drops are counted.
-- KEYS    1 inflight:<consumer>  2 dead  3 dead:index  4 meta  5 pending  6 scheduled  7 drained
-- ARGV    1 most jobs to keep  2 longest to keep one, ms  3… pairs of delivery tag and report (JSON, one line)
-- returns {OK, buried, stale}
-- oom     allowed
-- callers Broker.bury
local inflight, dead, index, meta, pending, scheduled, drained = unpack(KEYS)
local keep, age, now, buried, stale = tonumber(ARGV[1]), tonumber(ARGV[2]), now_ms(), 0, 0

local function drop(tags)
  if #tags == 0 then return end
  redis.call('HDEL', dead, unpack(tags))
  redis.call('ZREM', index, unpack(tags))
  redis.call('HINCRBY', meta, 'dropped', #tags)
end

for i = 3, #ARGV, 2 do
  local tag = ARGV[i]
  local entry = settled(inflight, tag)
  if entry then
    redis.call('HSET', dead, tag, ARGV[i + 1] .. '\n' .. entry)
    redis.call('ZADD', index, now, tag)
    buried = buried + 1
  else
    stale = stale + 1
  end
end
if buried > 0 then
  redis.call('HINCRBY', meta, 'failed', buried)
  redis.call('HINCRBY', meta, 'inflight', -buried)
  drop(redis.call('ZRANGEBYSCORE', index, '-inf', now - age, 'LIMIT', 0, 1000))
  local excess = math.min(redis.call('ZCARD', index) - keep, 1000)
  if excess > 0 then drop(redis.call('ZRANGE', index, 0, excess - 1)) end
  ring_drained(pending, scheduled, meta, drained)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, buried, stale}
