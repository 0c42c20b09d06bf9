-- resume: let a paused queue be taken from again, and wake the consumers that wait.
-- KEYS    1 meta  2 pending  3 bell
-- returns {OK}
-- oom     allowed
-- callers Broker.resume
redis.call('HDEL', KEYS[1], 'paused')
ring_bell(KEYS[3], redis.call('LLEN', KEYS[2]))
return {OK}
