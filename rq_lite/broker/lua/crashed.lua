-- crashed: return deliveries whose own process died while it ran them (run_in="process"; their consumer lives) to the
--          head of the queue, each charged a crash: with the second they are suspects and run alone, with the last
--          that their task allows they are buried, as by reclaim.
-- KEYS    1 inflight:<consumer>  2 pending  3 meta  4 bell  5 suspects  6 dead  7 dead:index  8 scheduled  9 drained
-- ARGV    1 consumer  2 most buried jobs to keep  3 longest to keep one, ms
--         4… quadruples of delivery tag, how it died, where it was then and with which crash it is buried, oldest first
-- returns {OK, crashed, stale, suspects among them}
-- oom     allowed
-- callers Broker.crashed
local inflight, pending, meta, bell, suspects, dead, index, scheduled, drained = unpack(KEYS)
local entries, buried, moved, stale = {}, {}, 0, 0
-- Newest first, so that the oldest ends up at the head.
for i = #ARGV - 3, 4, -4 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    local how, where, most = ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
    local charged_entry, report = crash(entry, meta, ARGV[1], 'processes', how, where, most)
    if report then
      local n = #buried
      buried[n + 1], buried[n + 2], buried[n + 3] = ARGV[i], report, charged_entry
    else
      entries[#entries + 1] = yield(meta, charged_entry, now_ms())
    end
    moved = moved + 1
  else
    stale = stale + 1
  end
end
local lone = 0
if moved > 0 then
  local usual, length
  usual, length, lone = wait_again('RPUSH', entries, pending, suspects, meta)
  to_dead(dead, index, meta, buried, tonumber(ARGV[2]), tonumber(ARGV[3]), now_ms())
  redis.call('HINCRBY', meta, 'bytes', length)
  redis.call('HINCRBY', meta, 'inflight', -moved)
  redis.call('HINCRBY', meta, 'crashed', moved)
  ring_bell(bell, usual)
  ring_drained(pending, scheduled, meta, drained)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, moved, stale, lone}
