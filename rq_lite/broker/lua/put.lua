-- put: add encoded jobs to a queue, as many as its bound allows, in their order.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 producer:<id>  7 alarm  [8 feed:<name>]
-- ARGV    1 sequence number of this put  2 lifetime of the producer's key, ms
--         3 woken (1: waited for room), and 2 more where an answer to the same put was lost
--         4 delay, ms (0: now), or @ and the moment, ms since 1970 (past: now)
--         5 overdraft, jobs beyond the bound (and twice its bytes)  6 n  7… n encoded jobs
--         with a feed also: its field, the value it must have now ('': none), n values (one after each job)
-- returns {OK, accepted, size, maxsize, bytes, maxbytes} | {STALE} | {UNDECLARED} | {CLOSED} | {MOVED, value of the field}
-- oom     refused
-- callers Broker.put
local pending, scheduled, meta, bell, room, producer, alarm, feed = unpack(KEYS)
local sequence, lifetime, woken, later, overdraft, n = ARGV[1], ARGV[2], ARGV[3] % 2 == 1, ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local first, mark = 7, 7 + n
-- What is refused now must not be put by an earlier sending of it that is still on its way.
local function refuse() if ARGV[3] + 0 > 1 then redis.call('SET', producer, sequence .. ':0', 'PX', lifetime) end end

local known = redis.call('HMGET', meta, 'maxsize', 'maxbytes', 'bytes', 'put', 'order', 'closed')
local maxsize, maxbytes, bytes = tonumber(known[1]), tonumber(known[2] or 0), tonumber(known[3] or 0)
if not maxsize then
  refuse()
  return {UNDECLARED}
end
local order = known[5]
local size = waiting(pending, order) + redis.call('ZCARD', scheduled)
if size == 0 then bytes = 0 end

local last = redis.call('GET', producer)
if last then
  local before, accepted = last:match('^(%d+):(%d+)$')
  if before == sequence then return {OK, tonumber(accepted), size, maxsize, bytes, maxbytes} end
  if tonumber(before) > tonumber(sequence) then return {STALE} end
end
if known[6] then
  -- Everybody who waits for room is to hear of it, one after the other.
  if woken then ring(room) end
  refuse()
  return {CLOSED}
end
if feed then
  local value = redis.call('HGET', feed, ARGV[mark]) or ''
  if value ~= ARGV[mark + 1] then
    refuse()
    return {MOVED, value}
  end
end

local fit = n
if maxsize > 0 then fit = math.max(0, math.min(n, maxsize + overdraft - size)) end
local length, most = 0, overdraft > 0 and 2 * maxbytes or maxbytes
for i = 0, fit - 1 do
  length = length + #ARGV[first + i]
  if most > 0 and bytes + length > most then
    length, fit = length - #ARGV[first + i], i
    break
  end
end

if fit > 0 then
  local due = 0
  if later ~= '0' then
    local now = now_ms()
    due = tonumber(later:match('^@(%d+)$')) or now + tonumber(later)
    if due <= now then due = 0 end
  end
  if due == 0 then
    if order == 'priority' then
      rank(false, {unpack(ARGV, first, first + fit - 1)}, pending, meta)
    else
      redis.call(order == 'lifo' and 'RPUSH' or 'LPUSH', pending, unpack(ARGV, first, first + fit - 1))
    end
    ring_bell(bell, fit)
  else
    if due < first_due(scheduled) then ring(alarm) end
    local tag = redis.call('HINCRBY', meta, 'tag', fit) - fit
    for i = 1, fit do schedule(scheduled, 's', tag + i, due, ARGV[first + i - 1]) end
  end
  bytes, size = bytes + length, size + fit
  redis.call('HSET', meta, 'bytes', bytes, 'put', (known[4] or 0) + fit)
  redis.call('SET', producer, sequence .. ':' .. fit, 'PX', lifetime)
  if feed then redis.call('HSET', feed, ARGV[mark], ARGV[mark + 1 + fit]) end
else
  refuse()
end

after_put(n - fit, woken, size, maxsize, meta, room)
return {OK, fit, size, maxsize, bytes, maxbytes}
