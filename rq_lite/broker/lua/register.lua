-- register: a consumer begins its lease; without one it takes nothing.
-- KEYS    1 consumers  2 meta
-- ARGV    1 consumer  2 length of the lease, ms
-- returns {OK} | {NEWER}: the queue's entries may carry marks that this version does not know
-- oom     allowed
-- callers Broker.register
if newer(redis.call('HGET', KEYS[2], 'format')) then return {NEWER} end
local now = now_ms()
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], 'seen', now)
return {OK}
