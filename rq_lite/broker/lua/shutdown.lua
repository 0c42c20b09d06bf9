-- shutdown: nothing more is put, and who waits for jobs learns that none will come; what waits goes on being taken, or
--           is dropped at once. Everybody who waits is woken.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- ARGV    1 immediate: jobs at most to drop from each place, where it may have to tell somebody ('': none)
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
