-- put: add encoded jobs to a queue, as many as its bound allows, in their order.
-- KEYS    1 pending  2 scheduled  3 meta  4 bell  5 room  6 producer:<id>  7 alarm  [8 feed:<name>]
-- ARGV    1 sequence number of this put  2 lifetime of the producer's key, ms
--         3 woken (1: waited for room), plus 2 if an answer to the same put was lost, plus 4 if a job has marks or
--         what `claim` reads: then each gets a verdict
--         4 delay, ms (0: now), or @ and the time, ms since 1970 (past: now)
--         5 origin: 0 (a producer), `over <task>` (a running job whose own workers serve this queue: the bound does not
--         hold for it, only the queue's headroom), or `wait <process> <n> <w>` (a running job that waits for room, as n
--         other jobs of its process do; w is 1 if it has waited before)  6 n  7… n encoded jobs
--         with a feed also: its field, the value it must have now ('': none), n values (what it is once each job is in)
-- returns {OK, accepted, size, maxsize, bytes, maxbytes[, verdicts, full]} | {STALE} | {UNDECLARED} | {CLOSED} | {MOVED, value of the field}
--         `verdicts` is '' if all were put, else one for each of those that were accepted, with commas between: p (put),
--         d and the id of the job that keeps it out, r and the id of the job in whose place it was put, x (dropped, as the
--         queue was full); `full` is the queue's policy
-- oom     refused
-- callers Broker.put
local pending, scheduled, meta, bell, room, producer, alarm, feed = unpack(KEYS, 1, 8)
local sequence, lifetime, woken, later, n = ARGV[1], ARGV[2], ARGV[3] % 2 == 1, ARGV[4], tonumber(ARGV[6])
local marked = ARGV[3] + 0 >= 4
local first, mark = 7, 7 + n
if not ARGV[mark] then feed = nil end
local job = ARGV[5] ~= '0' and ARGV[5]
local task = job and job:match('^over (.*)$')
-- Once a put is refused, an earlier sending of it that is still on its way must not put either.
local function refuse() if ARGV[3] % 4 > 1 then redis.call('SET', producer, sequence .. ':0', 'PX', lifetime) end end

local known = redis.call('HMGET', meta, 'maxsize', 'maxbytes', 'bytes', 'put', 'order', 'closed', 'full', 'marked', 'latest_bytes')
local maxsize, maxbytes, bytes = tonumber(known[1]), tonumber(known[2] or 0), tonumber(known[3] or 0)
if not maxsize then
  refuse()
  return {UNDECLARED}
end
local order, full = known[5], known[7] or 'wait'
local size = waiting(pending, order) + redis.call('ZCARD', scheduled)
if size == 0 then bytes = 0 end

local last = redis.call('GET', producer)
if last then
  local before, accepted, said = last:match('^(%d+):(%d+):?(.*)$')
  if before == sequence then return {OK, tonumber(accepted), size, maxsize, bytes, maxbytes, said, full} end
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
-- Jobs that replace others take no room, but memory.
if most > 0 and known[9] then most = math.max(1, most - known[9]) end
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

local due = 0
if later ~= '0' then
  local now = now_ms()
  due = tonumber(later:match('^@(%d+)$')) or now + tonumber(later)
  if due <= now then due = 0 end
end

-- The jobs that go in, if not simply the first `fit`; then also a verdict for each that is dealt with.
local fresh, verdicts, apart, put, duplicates, dropped = nil, {}, 0, fit, 0, 0
if marked or (fit < n and (known[8] or full == 'drop-new' or full == 'drop-old')) then
  local now, looks, drops = now_ms(), 100, 1000
  fresh, fit, put, length = {}, n, 0, 0
  redis.call('HSET', meta, 'bytes', bytes)
  -- After a step that may have let another job wait in place of one.
  local function look_again()
    size = waiting(pending, order) + redis.call('ZCARD', scheduled)
    bytes = tonumber(redis.call('HGET', meta, 'bytes'))
  end
  local function fits(entry)
    return (bound == 0 or size + #fresh < bound) and (most == 0 or bytes + length + #entry <= most)
  end
  -- Make room at the end where the oldest job waits (in a queue with priorities: the last in turn): jobs there that have
  -- expired end; with drop-old any do.
  local function make_room(entry)
    while not fits(entry) do
      local old, member
      if order == 'priority' then
        member = redis.call('ZRANGE', pending, -1, -1)[1]
        old = member and member:sub(19)
      else
        old = redis.call('LINDEX', pending, order == 'lifo' and 0 or -1)
      end
      local expires = old and old:byte(1) ~= 123 and select(10, parse(old))
      local past = expires and expires > 0 and expires <= now and looks > 0 and not has_callbacks(old)
      if not past and not (full == 'drop-old' and drops > 0 and (old or (#fresh > 0 and due == 0))) then return false end
      if not old then
        old = table.remove(fresh, 1)
        length = length - #old
      else
        redis.call('HINCRBY', meta, 'bytes', -#old)
        if member then
          redis.call('ZREM', pending, member)
        else
          redis.call(order == 'lifo' and 'LPOP' or 'RPOP', pending)
        end
      end
      if past then
        looks = looks - 1
        redis.call('HINCRBY', meta, 'expired', 1)
        ended(meta, old, 'expired', '')
      else
        drops = drops - 1
        dropped = dropped + 1 + ended(meta, old, 'dropped', '', nil, true)
      end
      look_again()
    end
    return true
  end
  for i = 0, n - 1 do
    local entry, holder, lock, instead = claim(meta, ARGV[first + i], due, now)
    if instead then
      verdicts[i + 1], apart, put = 'r' .. instead(), apart + 1, put + 1
      look_again()
    elseif holder then
      verdicts[i + 1], apart, duplicates = 'd' .. holder, apart + 1, duplicates + 1
    elseif fits(entry) or ((maxbytes == 0 or #entry <= maxbytes) and make_room(entry)) then
      verdicts[i + 1], put = 'p', put + 1
      fresh[#fresh + 1], length = entry, length + #entry
      if lock then lock() end
    elseif not task and (full == 'drop-new' or full == 'drop-old') and (maxbytes == 0 or #entry <= maxbytes) then
      verdicts[i + 1], apart, dropped = 'x', apart + 1, dropped + 1
      put = put + 1
      ended(meta, entry, 'dropped', '')
    else
      fit = i
      break
    end
  end
  if dropped > 0 then redis.call('HINCRBY', meta, 'overflowed', dropped) end
end

if duplicates > 0 then redis.call('HINCRBY', meta, 'duplicates', duplicates) end
local said, came = apart > 0 and table.concat(verdicts, ',') or '', fresh and #fresh or fit
if fit > 0 then
  local entries = fresh
  if not fresh and (order == 'priority' or due > 0) then entries = {unpack(ARGV, first, first + fit - 1)} end
  if due > 0 then
    if came > 0 and due < first_due(scheduled) then ring(alarm) end
    local tag = redis.call('HINCRBY', meta, 'tag', came) - came
    for i = 1, came do schedule(scheduled, 's', tag + i, due, entries[i]) end
  elseif entries then
    add(entries, pending, order, meta)
    ring_bell(bell, came)
  else
    redis.call(order == 'lifo' and 'RPUSH' or 'LPUSH', pending, unpack(ARGV, first, first + fit - 1))
    ring_bell(bell, fit)
  end
  bytes, size = bytes + length, size + came
  redis.call('HSET', meta, 'bytes', bytes, 'put', (known[4] or 0) + put)
  redis.call('SET', producer, sequence .. ':' .. fit .. (said ~= '' and ':' .. said or ''), 'PX', lifetime)
  if feed then redis.call('HSET', feed, ARGV[mark], ARGV[mark + 1 + fit]) end
else
  refuse()
  if fresh then -- jobs that had expired may have ended
    ring_drained(pending, scheduled, meta, prefix_of(meta) .. 'drained')
  end
end

if task then
  local function over(jobs, length) return (maxsize > 0 and jobs > maxsize) or (maxbytes > 0 and length > maxbytes) end
  if came > 0 and over(size, bytes) then
    -- Counts since the queue last went over its bound.
    local key = prefix_of(meta) .. 'over'
    if not over(size - came, bytes - length) then redis.call('DEL', key) end
    redis.call('HINCRBY', key, task, came)
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
return {OK, fit, size, maxsize, bytes, maxbytes, said, full}
