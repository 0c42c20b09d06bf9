-- trim: hold the dead set to its caps also when nothing is buried, some thousand jobs at a time; drops are counted.
-- KEYS    1 dead  2 dead:index  3 meta
-- ARGV    1 most jobs to keep  2 longest to keep one, ms
-- returns {OK, dropped}
-- oom     allowed
-- callers Broker.trim
local dead, index, meta = unpack(KEYS)
return {OK, trim_dead(dead, index, meta, tonumber(ARGV[1]), tonumber(ARGV[2]), now_ms())}
