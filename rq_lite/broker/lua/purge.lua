-- purge: drop every job that waits or is scheduled; what is in flight goes on. The number is counted.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 drained  7 suspects
-- returns {OK, purged}
-- oom     allowed
-- callers Broker.purge
local pending, scheduled, meta, bell, room, drained, suspects = unpack(KEYS)
local purged = redis.call('LLEN', pending) + redis.call('ZCARD', scheduled) + redis.call('LLEN', suspects)
redis.call('UNLINK', pending, scheduled, bell, suspects)
redis.call('HDEL', meta, 'bytes', 'parked', 'suspects')
if purged > 0 then redis.call('HINCRBY', meta, 'purged', purged) end
ring_room(pending, scheduled, meta, room)
ring_drained(pending, scheduled, meta, drained)
return {OK, purged}
