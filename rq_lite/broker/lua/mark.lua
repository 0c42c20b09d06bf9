-- mark: move marks of a feed, each only if it still has the value that the caller knows.
-- KEYS    1 feed:<name>
-- ARGV    of each mark: its field, the value it must have now ('': none), the value it gets ('': it is removed)
-- returns {OK, how many were moved}
-- oom     refused
-- callers Broker.mark_feed
local feed, moved = KEYS[1], 0
for i = 1, #ARGV, 3 do
  local field, expected, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if (redis.call('HGET', feed, field) or '') == expected then
    if value == '' then redis.call('HDEL', feed, field) else redis.call('HSET', feed, field, value) end
    moved = moved + 1
  end
end
return {OK, moved}
