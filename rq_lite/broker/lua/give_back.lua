-- give_back: return deliveries that were not finished to the head of the queue, in their order, uncharged. One that a
--            newer job replaces gives way to it.
-- KEYS    1 inflight:<consumer>  2 pending  3 meta  4 bell  5 suspects
-- ARGV    delivery tags, oldest first
-- returns {OK, given back, stale}
-- oom     allowed
-- callers Broker.give_back
local inflight, pending, meta, bell, suspects = unpack(KEYS)
local entries, moved, stale = {}, 0, 0
for i = #ARGV, 1, -1 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    moved = moved + 1
    if entry:byte(1) ~= 123 then entry = yield(meta, entry, now_ms()) end
    entries[#entries + 1] = entry
  else
    stale = stale + 1
  end
end
if moved > 0 then
  local usual, length = wait_again('RPUSH', entries, pending, suspects, meta)
  redis.call('HINCRBY', meta, 'bytes', length)
  redis.call('HINCRBY', meta, 'inflight', -moved)
  ring_bell(bell, usual)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, moved, stale}
