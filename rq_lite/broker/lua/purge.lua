-- purge: drop every job that waits or is scheduled; jobs in flight go on. The number is counted. If jobs may be tracked
--        (`tracked` of meta), a batch at a time: they end as cancelled.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 jobs at most from each place, if jobs may be tracked
--         2 not after this time, ms since 1970: the caller has timed out by then, and jobs may have been put since
-- returns {OK, purged, left} | {STALE} | {NEWER}
-- oom     allowed
-- callers Broker._step
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
if now_ms() > tonumber(ARGV[2]) then return {STALE} end
local dropped, left = drop_waiting(ARGV[1], pending, scheduled, meta, bell, room, drained, suspects)
return {OK, dropped, left}
