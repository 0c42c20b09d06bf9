-- promote: move scheduled jobs that are due to the queue; they were accepted already, so no bound refuses them.
-- KEYS    1 scheduled  2 pending  3 meta  4 bell
-- ARGV    1 jobs at most
-- returns {OK, promoted, ms until the next is due (-1: none is scheduled)}
-- oom     allowed
-- callers Broker.promote
local scheduled, pending, meta, bell = unpack(KEYS)
local now, parked = now_ms(), 0
local members = redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'LIMIT', 0, ARGV[1])
if #members > 0 then
  redis.call('ZREM', scheduled, unpack(members))
  for i, member in ipairs(members) do
    if member:sub(1, 1) == 'p' then parked = parked + 1 end
    members[i] = member:match('^%a%d+|(.*)$') or member
  end
  redis.call('LPUSH', pending, unpack(members))
  if parked > 0 then redis.call('HINCRBY', meta, 'parked', -parked) end
  ring_bell(bell, #members)
end
local head = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
return {OK, #members, head[2] and math.max(0, math.ceil(head[2] - now)) or -1}
