-- announce: what a worker says of itself, gone by itself when it says no more.
-- KEYS    1 rq:worker:<id>
-- ARGV    1 lifetime, ms  2… pairs of field and value
-- returns {OK}
-- oom     allowed
-- callers Broker.announce
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {OK}
