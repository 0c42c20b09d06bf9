-- purge: drop every job that waits or is scheduled; jobs in flight go on. The number is counted. If jobs may be tracked
--        (`tracked` of meta), a batch at a time: they end as cancelled. Or drop, of a part of one place, only the jobs that
--        have expired; those end as expired. One with callbacks stays: its consumer puts them.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 jobs at most from each place, if jobs may be tracked; or at most looked at
--         2 not after this time, ms since 1970: the caller has timed out by then, and jobs may have been put since
--         [3 pending or scheduled: only what has expired there  4 so many from the head of the place on]
-- returns {OK, purged, left; or looked at} | {STALE} | {NEWER}
-- oom     allowed
-- callers Broker._step, Broker.purge_expired
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
local now = now_ms()
if now > tonumber(ARGV[2]) then return {STALE} end
if not ARGV[3] then
  local dropped, left = drop_waiting(ARGV[1], pending, scheduled, meta, bell, room, drained, suspects)
  return {OK, dropped, left}
end

-- No entry is this.
local GONE = '-'
local place, from, to = ARGV[3] == 'pending' and pending or scheduled, tonumber(ARGV[4]), ARGV[4] + ARGV[1] - 1
local listed = redis.call('TYPE', place).ok == 'list'
local members, ends = {}, {}
if listed then
  -- The head of a list is on the right.
  local found = redis.call('LRANGE', place, -1 - to, -1 - from)
  for i = #found, 1, -1 do members[#members + 1] = found[i] end
else
  members = redis.call('ZRANGE', place, from, to)
end
for i, member in ipairs(members) do
  local entry = listed and member or member:match('^%a%d+|(.*)$') or member
  local _, _, _, _, _, unknown, _, _, _, expires = parse(entry)
  if expires and expires > 0 and expires <= now and unknown == '' and not has_callbacks(entry) then
    ends[#ends + 1] = entry
    if listed then
      redis.call('LSET', place, -from - i, GONE)
    else
      redis.call('ZREM', place, member)
      if place == scheduled and member:sub(1, 1) == 'p' then redis.call('HINCRBY', meta, 'parked', -1) end
    end
    redis.call('HINCRBY', meta, 'bytes', -#entry)
  end
end
if #ends > 0 then
  if listed then redis.call('LREM', place, -#ends, GONE) end
  redis.call('HINCRBY', meta, 'expired', #ends)
  for _, entry in ipairs(ends) do ended(meta, entry, 'expired', '') end
  ring_room(pending, scheduled, meta, room)
  ring_drained(pending, scheduled, meta, drained)
end
return {OK, #ends, #members}
