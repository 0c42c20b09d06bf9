-- piece: a part of the value of a hash's field that is larger than one answer may be.
-- KEYS    1 inflight:<consumer>
-- ARGV    1 field  2 first byte (from 1)  3 last byte
-- returns {OK, part} | {STALE}: there is no such field (any more)
-- oom     allowed
-- callers Broker._in_pieces
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return {STALE} end
return {OK, value:sub(tonumber(ARGV[2]), tonumber(ARGV[3]))}
