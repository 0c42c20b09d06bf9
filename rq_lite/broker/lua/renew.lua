-- renew: prolong the leases of consumers that live; one that is not listed must register again by itself.
--        Also stores the throughput of the last seconds (for status), and returns how many jobs wait.
-- KEYS    1 consumers  2 meta  3 pending
-- ARGV    1 length of the lease, ms  2… consumers
-- returns {OK, renewed, jobs that wait to be taken, suspects, paused}; paused 1 (paused) or 2 (the queue's
--         format is newer): nothing is to be taken, and both numbers are 0
-- oom     allowed
-- callers Broker.renew
local consumers, meta, pending = unpack(KEYS)
local now, renewed = now_ms(), 0
for i = 2, #ARGV do
  if redis.call('ZSCORE', consumers, ARGV[i]) then
    redis.call('ZREM', consumers, ARGV[i])
    redis.call('ZADD', consumers, now + tonumber(ARGV[1]), ARGV[i])
    renewed = renewed + 1
  end
end
if renewed > 0 then
  local before = redis.call('HMGET', meta, 'done', 'rate_done', 'rate_at')
  local done, counted, at = tonumber(before[1] or 0), tonumber(before[2] or 0), tonumber(before[3] or 0)
  redis.call('HSET', meta, 'seen', now)
  if now - at >= 1500 then
    local rate = at > 0 and math.max(0, (done - counted) * 1000 / (now - at)) or 0
    redis.call('HSET', meta, 'rate', string.format('%.1f', rate), 'rate_done', done, 'rate_at', now)
  end
end
local state = redis.call('HMGET', meta, 'paused', 'suspects', 'order', 'format')
if newer(state[4]) then return {OK, renewed, 0, 0, 2} end
if state[1] == '1' then return {OK, renewed, 0, 0, 1} end
return {OK, renewed, waiting(pending, state[3]), tonumber(state[2] or 0), 0}
