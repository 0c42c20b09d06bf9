-- forget: drop buried jobs for good, as an operator asks. The number is counted as purged.
-- KEYS    1 dead  2 dead:index  3 meta
-- ARGV    delivery tags
-- returns {OK, forgotten} | {NEWER}
-- oom     allowed
-- callers Broker.forget
local dead, index, meta = unpack(KEYS)
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
local forgotten = redis.call('HDEL', dead, unpack(ARGV))
redis.call('ZREM', index, unpack(ARGV))
if forgotten > 0 then redis.call('HINCRBY', meta, 'purged', forgotten) end
return {OK, forgotten}
