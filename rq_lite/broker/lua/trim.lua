-- trim: hold the dead set to its caps also when nothing is buried, some thousand jobs at a time; drops are counted.
--       Also hold the marks that cancel jobs to theirs.
-- KEYS    1 dead  2 dead:index  3 meta  4 cancelled
-- ARGV    1 most jobs to keep  2 longest to keep one, ms
-- returns {OK, dropped}
-- oom     allowed
-- callers Broker.trim
local dead, index, meta, cancelled = unpack(KEYS)
local now = now_ms()
trim_marks(cancelled, now)
return {OK, trim_dead(dead, index, meta, tonumber(ARGV[1]), tonumber(ARGV[2]), now)}
