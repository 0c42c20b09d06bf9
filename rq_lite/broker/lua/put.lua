-- put: add encoded jobs to a queue, as many as its bound allows, in their order.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 producer:<id>  7 alarm  [8 feed:<name>]
-- ARGV    1 sequence number of this put  2 lifetime of the producer's key, ms
--         3 woken (1: waited for room), plus 2 if an answer to the same put was lost
--         4 delay, ms (0: now), or @ and the time, ms since 1970 (past: now)
--         5 origin: 0 (a producer), `over <task>` (a running job whose own workers serve this queue: the bound does not
--         hold for it, only the queue's headroom), or `wait <process> <n> <w>` (a running job that waits for room, as n
--         other jobs of its process do; w is 1 if it has waited before)  6 n  7… n encoded jobs
--         with a feed also: its field, the value it must have now ('': none), n values (what it is once each job is in)
-- returns {OK, accepted, size, maxsize, bytes, maxbytes} | {STALE} | {UNDECLARED} | {CLOSED} | {MOVED, value of the field}
-- oom     refused
-- callers Broker.put
local pending, scheduled, meta, bell, room, producer, alarm, feed = unpack(KEYS, 1, 8)
local sequence, lifetime, woken, later, n = ARGV[1], ARGV[2], ARGV[3] % 2 == 1, ARGV[4], tonumber(ARGV[6])
local first, mark = 7, 7 + n
if not ARGV[mark] then feed = nil end
local job = ARGV[5] ~= '0' and ARGV[5]
local task = job and job:match('^over (.*)$')
-- Once a put is refused, an earlier sending of it that is still on its way must not put either.
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
  -- Wake all producers that wait for room, one after the other.
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

local fit, most, bound = n, maxbytes, maxsize
if task then
  local headroom = tonumber(redis.call('HGET', meta, 'headroom') or nil)
  most, bound = 0, maxsize > 0 and headroom and maxsize + headroom or 0
end
if bound > 0 then fit = math.max(0, math.min(n, bound - size)) end
local length = 0
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

if task then
  local function over(jobs, length) return (maxsize > 0 and jobs > maxsize) or (maxbytes > 0 and length > maxbytes) end
  if fit > 0 and over(size, bytes) then
    -- Counts since the queue last went over its bound.
    local key = prefix_of(meta) .. 'over'
    if not over(size - fit, bytes - length) then redis.call('DEL', key) end
    redis.call('HINCRBY', key, task, fit)
    redis.call('PEXPIRE', key, 86400000)
  end
elseif job then
  local WAITS = 5000  -- ms: a job that waits repeats its put every two seconds
  local process, others, before = job:match('^wait (%S+) (%d+) (%d)$')
  local waits, key = others + (fit < n and 1 or 0), prefix_of(meta) .. 'blocked'
  if waits > 0 then
    redis.call('HSET', key, process, string.format('%d %d', waits, now_ms() + WAITS))
    redis.call('PEXPIRE', key, WAITS)
  elseif before == '1' then
    redis.call('HDEL', key, process)
  end
end
after_put(task and 0 or n - fit, woken, size, maxsize, meta, room)  -- a job's put that is refused does not wait
return {OK, fit, size, maxsize, bytes, maxbytes}
