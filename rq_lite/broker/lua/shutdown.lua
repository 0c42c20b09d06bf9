-- shutdown: refuse further puts, and tell consumers that wait that no more jobs will come; jobs that wait are still
--           taken, or dropped at once. All processes that wait are woken.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 '': drop no job; else drop at once, at most this many from each place if jobs may be tracked
-- returns {OK, dropped, left} | {NEWER}
-- oom     allowed
-- callers Broker.shutdown
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
redis.call('HDEL', meta, 'wanted')
redis.call('HSET', meta, 'closed', 1)
local dropped, left = 0, 0
if ARGV[1] ~= '' then dropped, left = drop_waiting(ARGV[1], pending, scheduled, meta, bell, room, drained, suspects) end
ring(room)
ring_bell(bell, 64)
return {OK, dropped, left}
