-- forget: drop buried jobs for good, as an operator asks. The number is counted as purged.
-- KEYS    1 dead  2 dead:index  3 meta
-- ARGV    delivery tags
-- returns {OK, forgotten}
-- oom     allowed
-- callers Broker.forget
local dead, index, meta = unpack(KEYS)
local forgotten = redis.call('HDEL', dead, unpack(ARGV))
redis.call('ZREM', index, unpack(ARGV))
if forgotten > 0 then redis.call('HINCRBY', meta, 'purged', forgotten) end
return {OK, forgotten}
