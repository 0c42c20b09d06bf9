-- retry: put deliveries that failed aside until they are due again; each is charged an attempt.
-- KEYS    1 inflight:<consumer>  2 scheduled  3 meta
-- ARGV    pairs of delivery tag and delay, ms
-- returns {OK, scheduled, stale}
-- oom     allowed
-- callers Broker.retry
local inflight, scheduled, meta = unpack(KEYS)
local now, moved, stale = now_ms(), 0, 0
for i = 1, #ARGV, 2 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    entry = charged(entry, 1, 0)
    schedule(scheduled, 's', ARGV[i], now + tonumber(ARGV[i + 1]), entry)
    redis.call('HINCRBY', meta, 'bytes', #entry)
    moved = moved + 1
  else
    stale = stale + 1
  end
end
if moved > 0 then
  redis.call('HINCRBY', meta, 'retried', moved)
  redis.call('HINCRBY', meta, 'inflight', -moved)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, moved, stale}
