-- size: how many jobs wait, and whether a put would have to wait.
-- KEYS    1 pending  2 scheduled  3 meta
-- returns {OK, size, full (1: yes)}
-- oom     allowed
-- callers Broker.size
local pending, scheduled, meta = unpack(KEYS)
local known = redis.call('HMGET', meta, 'maxsize', 'maxbytes', 'bytes', 'order')
local maxsize, maxbytes, bytes = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0)
local size = waiting(pending, known[4]) + redis.call('ZCARD', scheduled)
local full = (maxsize > 0 and size >= maxsize) or (size > 0 and maxbytes > 0 and bytes >= maxbytes)
return {OK, size, full and 1 or 0}
