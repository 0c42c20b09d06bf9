-- retry: schedule deliveries that failed to run again; each is charged an attempt.
-- KEYS    1 inflight:<consumer>  2 scheduled  3 meta  4 alarm
-- ARGV    pairs of delivery tag and delay, ms
-- returns {OK, scheduled, stale}
-- oom     allowed
-- callers Broker.retry
local inflight, scheduled, meta, alarm = unpack(KEYS)
local now, first, moved, stale, soonest = now_ms(), first_due(scheduled), 0, 0, math.huge
for i = 1, #ARGV, 2 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    entry = charged(entry, 1, 0, 0)
    local due = now + tonumber(ARGV[i + 1])
    schedule(scheduled, 's', ARGV[i], due, entry)
    soonest = math.min(soonest, due)
    redis.call('HINCRBY', meta, 'bytes', #entry)
    moved = moved + 1
  else
    stale = stale + 1
  end
end
if moved > 0 then
  redis.call('HINCRBY', meta, 'retried', moved)
  redis.call('HINCRBY', meta, 'inflight', -moved)
  if soonest < first then ring(alarm) end
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, moved, stale}
