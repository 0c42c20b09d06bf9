-- give_back: return deliveries that were not finished to the head of the queue, in their order, uncharged.
-- KEYS    1 inflight:<consumer>  2 pending  3 meta  4 bell
-- ARGV    delivery tags, oldest first
-- returns {OK, given back, stale}
-- oom     allowed
-- callers Broker.give_back
local inflight, pending, meta, bell = unpack(KEYS)
local moved, stale, length = 0, 0, 0
for i = #ARGV, 1, -1 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    redis.call('RPUSH', pending, entry)
    length = length + #entry
    moved = moved + 1
  else
    stale = stale + 1
  end
end
if moved > 0 then
  redis.call('HINCRBY', meta, 'bytes', length)
  redis.call('HINCRBY', meta, 'inflight', -moved)
  ring_bell(bell, moved)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, moved, stale}
