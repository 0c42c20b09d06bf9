-- resume: let a paused queue be taken from again, and wake the consumers that wait.
-- KEYS    1 meta  2 pending  3 bell
-- returns {OK} | {NEWER}
-- oom     allowed
-- callers Broker.resume
local meta, pending, bell = unpack(KEYS)
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
redis.call('HDEL', meta, 'paused')
ring_bell(bell, waiting(pending, redis.call('HGET', meta, 'order')))
return {OK}
