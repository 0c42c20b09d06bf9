-- shutdown: nothing more is put, and who waits for jobs learns that none will come; what waits goes on being taken, or
--           is dropped at once. Everybody who waits is woken.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 immediate (1: drop what waits)
-- returns {OK, dropped}
-- oom     allowed
-- callers Broker.shutdown
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
redis.call('HDEL', meta, 'wanted')
redis.call('HSET', meta, 'closed', 1)
local dropped = 0
if ARGV[1] == '1' then dropped = drop_waiting(pending, scheduled, meta, bell, room, drained, suspects) end
ring(room)
ring_bell(bell, 64)
return {OK, dropped}
