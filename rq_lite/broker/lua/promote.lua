-- promote: move scheduled jobs that are due to the queue; they were accepted already, so no bound refuses them.
-- KEYS    1 scheduled  2 pending  3 meta  4 bell  5 suspects
-- ARGV    1 jobs at most
-- returns {OK, promoted, ms until the next is due (-1: none is scheduled)}
-- oom     allowed
-- callers Broker.promote
local scheduled, pending, meta, bell, suspects = unpack(KEYS)
local now, parked = now_ms(), 0
local members = redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'LIMIT', 0, ARGV[1])
if #members > 0 then
  redis.call('ZREM', scheduled, unpack(members))
  local before = 0
  for i, member in ipairs(members) do
    if member:sub(1, 1) == 'p' then parked = parked + 1 end
    members[i] = member:match('^%a%d+|(.*)$') or member
    before = before + #members[i]
  end
  local usual, length = wait_again('LPUSH', members, pending, suspects, meta)
  -- Jobs that go to the queue still count against its bound; suspects do not.
  if length < before then redis.call('HINCRBY', meta, 'bytes', length - before) end
  if parked > 0 then redis.call('HINCRBY', meta, 'parked', -parked) end
  ring_bell(bell, usual)
end
local head = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
return {OK, #members, head[2] and math.max(0, math.ceil(head[2] - now)) or -1}
