-- purge: drop every job that waits or is scheduled; what is in flight goes on. The number is counted.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- returns {OK, purged}
-- oom     allowed
-- callers Broker.purge
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
return {OK, drop_waiting(pending, scheduled, meta, bell, room, drained, suspects)}
