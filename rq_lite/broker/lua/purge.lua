-- purge: drop every job that waits or is scheduled; what is in flight goes on. The number is counted. Where somebody
--        may want to hear of jobs (`tracked` of meta) so many at a time: they end as cancelled.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 jobs at most from each place, where it may have to tell somebody
-- returns {OK, purged, left}
-- oom     allowed
-- callers Broker.purge
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
local dropped, left = drop_waiting(ARGV[1], pending, scheduled, meta, bell, room, drained, suspects)
return {OK, dropped, left}
