-- retry: schedule deliveries that failed to run again; each is charged an attempt. Those that have expired meanwhile end.
-- KEYS    1 inflight:<consumer>  2 scheduled  3 meta  4 alarm
-- ARGV    pairs of delivery tag and delay, ms
-- returns {OK, scheduled, stale}
-- oom     allowed
-- callers Broker.retry
local inflight, scheduled, meta, alarm = unpack(KEYS)
local now, first, moved, over, stale, soonest = now_ms(), first_due(scheduled), 0, 0, 0, math.huge
for i = 1, #ARGV, 2 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    local due = now + tonumber(ARGV[i + 1])
    local expires = entry:byte(1) ~= 123 and select(10, parse(entry))
    if expires and expires <= now then
      due, entry = now, turn(meta, entry, now)
      over = over + (entry and 0 or 1)
    end
    if entry then
      entry = charged(entry, 1, 0, 0)
      schedule(scheduled, 's', ARGV[i], due, entry)
      soonest = math.min(soonest, due)
      redis.call('HINCRBY', meta, 'bytes', #entry)
    end
    moved = moved + 1
  else
    stale = stale + 1
  end
end
if moved > 0 then
  redis.call('HINCRBY', meta, 'retried', moved - over)
  redis.call('HINCRBY', meta, 'inflight', -moved)
  if over > 0 then
    local prefix = prefix_of(meta)
    ring_drained(prefix .. 'pending', scheduled, meta, prefix .. 'drained')
  end
  if soonest < first then ring(alarm) end
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, moved, stale}
