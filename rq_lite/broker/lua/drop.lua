-- drop: end deliveries of jobs that were cancelled.
-- KEYS    1 inflight:<consumer>  2 meta  3 pending  4 scheduled  5 drained  6 cancelled
-- ARGV    pairs of delivery tag and job id
-- returns {OK, dropped, stale}
-- oom     allowed
-- callers Broker.drop
local inflight, meta, pending, scheduled, drained, cancelled = unpack(KEYS)
local dropped, stale = 0, 0
for i = 1, #ARGV, 2 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    redis.call('ZREM', cancelled, ARGV[i + 1])
    end_entry(prefix_of(meta), entry, 'cancelled', '')
    dropped = dropped + 1
  else
    stale = stale + 1
  end
end
if dropped > 0 then
  redis.call('HINCRBY', meta, 'cancelled', dropped)
  redis.call('HINCRBY', meta, 'inflight', -dropped)
  ring_drained(pending, scheduled, meta, drained)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, dropped, stale}
