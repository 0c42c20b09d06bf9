-- purge: drop every job that waits or is scheduled; what is in flight goes on. The number is counted. Where somebody
--        may want to hear of jobs (`tracked` of meta) so many at a time: they end as cancelled.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 jobs at most from each place, where it may have to tell somebody
--         2 not after this moment, ms since 1970: its sender has given it up then, and others have put since
-- returns {OK, purged, left} | {STALE} | {NEWER}
-- oom     allowed
-- callers Broker._step
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
if now_ms() > tonumber(ARGV[2]) then return {STALE} end
local dropped, left = drop_waiting(ARGV[1], pending, scheduled, meta, bell, room, drained, suspects)
return {OK, dropped, left}
