-- retry: schedule deliveries that failed to run again; each is charged an attempt. Those that have expired meanwhile end,
--        and those that a newer job replaces give way to it.
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
    local due, left = now + tonumber(ARGV[i + 1]), entry
    if entry:byte(1) ~= 123 then
      local expires = select(10, parse(entry))
      left = yield(meta, entry, now)
      if left ~= entry then
        over = over + 1
        if left then join_end(meta, left) end
        left = nil
      elseif expires and expires <= now then
        due, left = now, turn(meta, entry, now)
        over = over + (left and 0 or 1)
      end
      if left then note_due(prefix_of(meta), left, due) end
    end
    if left then
      left = charged(left, 1, 0, 0)
      schedule(scheduled, 's', ARGV[i], due, left)
      soonest = math.min(soonest, due)
      redis.call('HINCRBY', meta, 'bytes', #left)
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
