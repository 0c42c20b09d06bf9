-- announce: store what a worker says of itself, which expires unless it is repeated; and its place in the list of
--           workers, from which expired ones are removed.
-- KEYS    1 rq-lite:worker:<id>  2 rq-lite:workers
-- ARGV    1 id  2 lifetime, ms  3… pairs of field and value
-- returns {OK}
-- oom     allowed
-- callers Broker.announce
local now, lifetime = now_ms(), tonumber(ARGV[2])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], lifetime)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + lifetime, ARGV[1])
-- The list lives as long as the last announcement in it.
if redis.call('PTTL', KEYS[2]) < lifetime then redis.call('PEXPIRE', KEYS[2], lifetime) end
return {OK}
