-- park: put aside, for a while and uncharged, deliveries of tasks that this worker does not know.
-- KEYS    1 inflight:<consumer>  2 scheduled  3 meta  4 alarm
-- ARGV    1 delay, ms  2 worker  3… pairs of delivery tag and task
-- returns {OK, parked, stale}
-- oom     allowed
-- callers Broker.park
local inflight, scheduled, meta, alarm = unpack(KEYS)
local delay, worker, now, moved, stale = tonumber(ARGV[1]), ARGV[2], now_ms(), 0, 0
local first = first_due(scheduled)
for i = 3, #ARGV, 2 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    schedule(scheduled, 'p', ARGV[i], now + delay, entry)
    redis.call('HINCRBY', meta, 'bytes', #entry)
    moved = moved + 1
    -- For status: which worker met which unknown task, and when. Producers may invent names, so there is a cap.
    local note = 'unknown:' .. ARGV[i + 1]:sub(1, 200)
    if redis.call('HEXISTS', meta, note) == 1 or redis.call('HLEN', meta) < 64 then
      redis.call('HSET', meta, note, now .. ' ' .. worker)
    end
  else
    stale = stale + 1
  end
end
if moved > 0 then
  redis.call('HINCRBY', meta, 'parked', moved)
  redis.call('HINCRBY', meta, 'inflight', -moved)
  if now + delay < first then ring(alarm) end
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, moved, stale}
