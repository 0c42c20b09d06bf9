-- purge: drop every job that waits or is scheduled; what is in flight goes on. The number is counted. Where somebody
--        may want to hear of jobs (`tracked` of meta) so many at a time: they end as cancelled.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 jobs at most from each place, where it may have to tell somebody
-- returns {OK, purged, left}
-- oom     allowed
-- callers Broker.purge
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
local function size() return redis.call('LLEN', pending) + redis.call('ZCARD', scheduled) + redis.call('LLEN', suspects) end
local before = size()

local function some()
  local most, entries, length, parked = ARGV[1], redis.call('RPOP', pending, ARGV[1]) or {}, 0, 0
  local flat, lone = redis.call('ZPOPMIN', scheduled, most), redis.call('RPOP', suspects, most) or {}
  for i = 1, #flat, 2 do
    if flat[i]:sub(1, 1) == 'p' then parked = parked + 1 end
    entries[#entries + 1] = flat[i]:match('^%a%d+|(.*)$') or flat[i]
  end
  for _, entry in ipairs(entries) do length = length + #entry end
  for _, list in ipairs({entries, lone}) do
    for _, entry in ipairs(list) do end_entry(prefix_of(meta), entry, 'cancelled', '') end
  end
  redis.call('HINCRBY', meta, 'bytes', -length)
  if parked > 0 then redis.call('HINCRBY', meta, 'parked', -parked) end
  if #lone > 0 then redis.call('HINCRBY', meta, 'suspects', -#lone) end
end

if redis.call('HGET', meta, 'tracked') == '1' then
  some()
else
  redis.call('UNLINK', pending, scheduled, suspects)
end
local left = size()
if left == 0 then
  redis.call('UNLINK', bell)
  redis.call('HDEL', meta, 'bytes', 'parked', 'suspects')
end
if before > left then redis.call('HINCRBY', meta, 'purged', before - left) end
ring_room(pending, scheduled, meta, room)
ring_drained(pending, scheduled, meta, drained)
return {OK, before - left, left}
