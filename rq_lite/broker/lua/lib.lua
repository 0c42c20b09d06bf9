-- What several scripts need. Each paragraph defines names; the loader puts in front of a script only those paragraphs
-- that it needs, directly or through others, in this order: so no blank lines within a function.

local OK, PART, STALE, NOLEASE, UNDECLARED, MOVED, ALIVE, CLOSED, NEWER = 0, 1, -1, -2, -3, -4, -5, -6, -7

-- Redis' own clock, in ms: no machine's clock is ever compared with another's.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The format of entries that these scripts know. If a queue's `format` in meta is higher, the end of its jobs may have
-- to release things that are not known here: nothing is taken from it, and operators' scripts are refused.
local FORMAT = 2

local function newer(format) return format and (tonumber(format) or math.huge) > FORMAT end

-- One token is enough to wake one waiter; a waiter that wakes and leaves something behind rings again.
local function ring(list)
  if redis.call('LLEN', list) == 0 then redis.call('LPUSH', list, 1) end
end

-- A token for each of n new jobs, up to a cap: every waiting consumer wakes at once.
local function ring_bell(bell, n)
  n = math.min(n, 64 - redis.call('LLEN', bell))
  if n < 1 then return end
  local tokens = {}
  for i = 1, n do tokens[i] = 1 end
  redis.call('LPUSH', bell, unpack(tokens))
end

-- From so many crashes, or so many deaths of whole workers, on a job runs alone.
local SUSPECT, UNLUCKY = 2, 5

-- What stands in front of a job's JSON, parsed here and in model/message.py (a test compares the two), and nowhere
-- else: nothing, or "<attempts>.<crashes>" and marks, in this order and each at most once: "@<priority>", "#<id>" (the
-- job is tracked), "*<workers that died while it ran>", "!<mode>:<name>" (of the lock of a unique job), "?<ms>" (when it
-- expires; 0: it has), and those that only a newer version sets ("~flow.node/index" and "^lane", which come before the
-- "!", and others). Returns attempts, crashes, where the JSON begins, the tracked job's id, the priority, the marks that
-- are not known here ('': none), how many workers died, the mode and the name of the lock, and when it expires. For
-- bytes that are no job the beginning of the JSON is nil: such an entry stays as it is, so that it can be buried unchanged.
local function parse(entry)
  if entry:byte(1) == 123 then return 0, 0, 1, nil, nil, '', 0 end
  local attempts, crashes, marks, at = entry:match('^(%d+)%.(%d+)([^{]*)(){')
  if not at or #attempts > 9 or #crashes > 9 then return 0, 0, nil, nil, nil, nil, 0 end
  if marks == '' then return tonumber(attempts), tonumber(crashes), at, nil, nil, '', 0 end
  if marks:byte(1) == 42 then -- '*': most that come back after the death of a worker have no other mark
    local deaths = marks:match('^%*(%d+)$')
    if deaths and #deaths <= 9 then
      return tonumber(attempts), tonumber(crashes), at, nil, nil, '', tonumber(deaths)
    end
  end
  local priority = marks:match('^@([0-9a-z.+-]+)')
  local from = priority and #priority + 2 or 1
  local id = marks:match('^#([A-Za-z0-9_.:%%-]+)', from)
  if id then from = from + #id + 1 end
  local deaths = marks:match('^%*(%d+)', from) or ''
  if deaths ~= '' then from = from + #deaths + 1 end
  local unknown = marks:sub(from)
  local mode, name, expires, after
  if unknown ~= '' then
    -- A mark that is followed by what cannot begin one is not known either.
    local function ends(rest) return rest and (rest == '' or rest:find('^[!$&,;=?^|~]')) end
    mode, name, after = unknown:match('^!([es]):([A-Za-z0-9_.:%%-]+)(.*)$')
    if ends(after) and #name <= 210 then unknown = after else mode, name = nil, nil end
    expires, after = unknown:match('^%?(%d+)(.*)$')
    if ends(after) and #expires <= 15 then unknown = after else expires = nil end
  end
  local fits = unknown == '' or unknown:find('^[!$&,;=?^|~][A-Za-z0-9_.:%%/!$&*,;=?^|~-]*$')
  if not fits or #(priority or '') > 30 or #(id or '') > 200 or #deaths > 9 then return 0, 0, nil, nil, nil, nil, 0 end
  return tonumber(attempts), tonumber(crashes), at, id, priority, unknown, tonumber(deaths) or 0, mode, name,
    tonumber(expires)
end

-- The JSON of a body without the signature that may follow it.
local function json_of(body)
  return body:match('^(.*})' .. string.rep('%x', 64) .. '$') or body
end

-- The entry from its marks on, without attempts, crashes and deaths of workers.
local function uncounted(entry)
  if entry:byte(1) == 123 then return entry end
  local front, rest = entry:match('^%d+%.%d+(@?[0-9a-z.+-]*#?[A-Za-z0-9_.:%%-]*)(.*)$')
  return front .. rest:gsub('^%*%d+', '')
end

-- The entry with so many more attempts, crashes and deaths of workers. Returns also these three as they are now, and the
-- marks that are not known here; for bytes that are no job only the entry.
local function charged(entry, attempts, crashes, deaths)
  local a, c, at, _, _, unknown, d = parse(entry)
  if not at then return entry end
  local front, rest = '', entry
  if at > 1 then front, rest = uncounted(entry):match('^(@?[0-9a-z.+-]*#?[A-Za-z0-9_.:%%-]*)(.*)$') end
  a, c, d = a + attempts, c + crashes, d + deaths
  return a .. '.' .. c .. front .. (d > 0 and '*' .. d or '') .. rest, a, c, d, unknown
end

-- Whether a job is to run alone.
local function suspected(entry)
  if entry:byte(1) == 123 then return false end
  local crashes, deaths = entry:match('^%d+%.(%d%d?)%*?(%d?%d?){')
  if not crashes then
    local parts = {parse(entry)}
    crashes, deaths = parts[2], parts[7]
  end
  return tonumber(crashes) >= SUSPECT or (tonumber(deaths) or 0) >= UNLUCKY
end

-- The id of a tracked job; nil for the others. A plain job costs a check of one byte.
local function tracked(entry)
  if entry:byte(1) == 123 then return nil end
  local _, _, _, id = parse(entry)
  return id
end

-- The fields of a job's JSON; an empty table for an entry that is no job.
local function job_of(entry)
  local _, _, at = parse(entry)
  local known, job = pcall(cjson.decode, json_of(at and entry:sub(at) or ''))
  return known and type(job) == 'table' and job or {}
end

-- `unpack` cannot return more than a few thousand values at once.
local function push_all(push, list, values)
  for i = 1, #values, 1000 do redis.call(push, list, unpack(values, i, math.min(i + 999, #values))) end
end

-- `pending` is a list, or a zset if the queue's order is "priority" (other orders: "lifo", and "fifo", the default).
local function waiting(pending, order)
  return redis.call(order == 'priority' and 'ZCARD' or 'LLEN', pending)
end

-- A member is an r (returned: before its equals) or an s, 16 digits that keep equals in order, "|" and the entry.
local function rank(returned, entries, pending, meta)
  if #entries == 0 then return end
  local tag, members = redis.call('HINCRBY', meta, 'tag', #entries) - #entries, {}
  for i, entry in ipairs(entries) do
    local _, _, _, _, priority = parse(entry)
    priority = tonumber(priority or 0) or 0
    if priority ~= priority then priority = 0 end
    -- The newest comes first among those that return, as at the head of a list; 9e15 is still counted exactly.
    local mark = returned and string.format('r%016d|', 9e15 - tag - i) or string.format('s%016d|', tag + i)
    members[2 * i - 1], members[2 * i] = string.format('%.17g', priority), mark .. entry
  end
  push_all('ZADD', pending, members)
end

-- Add new jobs where the queue's order puts them.
local function add(entries, pending, order, meta)
  if order == 'priority' then return rank(false, entries, pending, meta) end
  push_all(order == 'lifo' and 'RPUSH' or 'LPUSH', pending, entries)
end

-- Take up to `want` entries; from a priority queue returns also the members and scores that were popped.
local function take(pending, order, want)
  if order ~= 'priority' then return redis.call('RPOP', pending, want) or {} end
  local popped, entries = redis.call('ZPOPMIN', pending, want), {}
  for i = 1, #popped, 2 do entries[(i + 1) / 2] = popped[i]:sub(19) end
  return entries, popped
end

-- Let jobs wait (again): `push` is RPUSH for the head of the queue and LPUSH for its end. Suspects wait in a list of
-- their own; returns how many went to the queue, the sum of their lengths, and how many are suspects.
local function wait_again(push, entries, pending, suspects, meta)
  local usual, lone, length = {}, {}, 0
  for _, entry in ipairs(entries) do
    if suspected(entry) then
      lone[#lone + 1] = entry
    else
      usual[#usual + 1] = entry
      length = length + #entry
    end
  end
  local order = redis.call('HGET', meta, 'order')
  if push == 'LPUSH' then
    add(usual, pending, order, meta)
  elseif order == 'priority' then
    rank(true, usual, pending, meta)
  else
    push_all(push, pending, usual)
  end
  push_all(push, suspects, lone)
  if #lone > 0 then redis.call('HINCRBY', meta, 'suspects', #lone) end
  return #usual, length, #lone
end

-- The dead set is capped by number and age; dropped jobs are counted. For each cap at most 1000 at a time.
local function trim_dead(dead, index, meta, keep, age, now)
  local function drop(tags)
    if #tags == 0 then return 0 end
    redis.call('HDEL', dead, unpack(tags))
    redis.call('ZREM', index, unpack(tags))
    redis.call('HINCRBY', meta, 'dropped', #tags)
    return #tags
  end
  local dropped = drop(redis.call('ZRANGEBYSCORE', index, '-inf', now - age, 'LIMIT', 0, 1000))
  local excess = math.min(redis.call('ZCARD', index) - keep, 1000)
  if excess > 0 then dropped = dropped + drop(redis.call('ZRANGE', index, 0, excess - 1)) end
  return dropped
end

-- Bury entries: triples of delivery tag, report (JSON, one line) and entry.
local function to_dead(dead, index, meta, buried, keep, age, now)
  for i = 1, #buried, 3 do
    redis.call('HSET', dead, buried[i], buried[i + 1] .. '\n' .. buried[i + 2])
    redis.call('ZADD', index, now, buried[i])
  end
  if #buried > 0 then
    redis.call('HINCRBY', meta, 'failed', #buried / 3)
    trim_dead(dead, index, meta, keep, age, now)
  end
end

-- How many jobs are unfinished: waiting (suspects, too), scheduled or in flight.
local function unfinished(pending, scheduled, meta)
  local elsewhere = redis.call('HMGET', meta, 'inflight', 'suspects', 'order')
  return waiting(pending, elsewhere[3]) + redis.call('ZCARD', scheduled)
    + tonumber(elsewhere[1] or 0) + tonumber(elsewhere[2] or 0)
end

-- Wake a process that waits in `join`, if no job is unfinished.
local function ring_drained(pending, scheduled, meta, drained)
  if unfinished(pending, scheduled, meta) <= 0 then ring(drained) end
end

-- Wake the producer that waits longest, if there is room for as many jobs as it wanted.
local function ring_room(pending, scheduled, meta, room)
  local bound = redis.call('HMGET', meta, 'wanted', 'maxsize', 'maxbytes', 'bytes', 'order')
  local wanted, maxsize, maxbytes = tonumber(bound[1] or 0), tonumber(bound[2] or 0), tonumber(bound[3] or 0)
  if wanted == 0 then return end
  local size = waiting(pending, bound[5]) + redis.call('ZCARD', scheduled)
  local fits = maxsize == 0 or maxsize - size >= wanted
  if size == 0 or (fits and (maxbytes == 0 or tonumber(bound[4] or 0) < maxbytes)) then
    redis.call('HDEL', meta, 'wanted')
    ring(room)
  end
end

-- After jobs were put: a producer that could not put all of them is to be woken when there is room for more; one that
-- was woken and has put all wakes the next if room remains.
local function after_put(left, woken, size, maxsize, meta, room)
  local want
  if left > 0 then
    -- Woken only when a good part fits, not for every single job taken: that saves wake-ups.
    want = math.max(1, math.min(left, math.floor(maxsize / 4)))
  elseif woken then
    if maxsize == 0 or size < maxsize then ring(room) else want = 1 end
  end
  if want and want < tonumber(redis.call('HGET', meta, 'wanted') or want + 1) then
    redis.call('HSET', meta, 'wanted', want)
  end
end

-- All keys of a queue begin as this one does.
local function prefix_of(key) return key:match('^.-}:') end

-- One of the two events of a job: it is no longer in flight, for whatever reason, and no consumer has it. Every script
-- that takes an entry off its owner calls this; `key` is any key of the queue. An entry without marks costs a check of
-- one byte.
local function released(key, entry)
  local id = tracked(entry)
  if id then redis.call('HDEL', prefix_of(key) .. 'job:' .. id, 'consumer', 'tag', 'started') end
end

-- Take a delivery off its owner; false if the owner no longer has it: that is the fence. The HDEL comes in either
-- case: on Redis 6.2 a script may write at maxmemory only after it has tried to remove something.
local function settled(inflight, tag)
  local entry = redis.call('HGET', inflight, tag)
  redis.call('HDEL', inflight, tag)
  if entry then released(inflight, entry) end
  return entry
end

-- Members of `scheduled` begin with a kind (s: due later, p: parked) and a number: two equal jobs stay two, and
-- as all numbers have the same width, jobs that are due in the same millisecond keep their order.
local function schedule(scheduled, kind, tag, due, entry)
  redis.call('ZADD', scheduled, due, string.format('%s%016d|', kind, tag) .. entry)
end

-- Marks of cancelled jobs are kept for MARKED ms, a week, and only the newest MARKS of them.
local MARKS, MARKED = 10000, 604800000

local function trim_marks(cancelled, now)
  redis.call('ZREMRANGEBYSCORE', cancelled, '-inf', now - MARKED)
  redis.call('ZREMRANGEBYRANK', cancelled, 0, -MARKS - 1)
end

-- Tracked jobs: how long the facts of one that has not ended are kept, ms; how long the inbox of a process that waits
-- (it may be gone) is kept, ms, and how many notes in it; the bytes up to which a result is pushed.
local KEPT, PUSHED, PUSHES, LARGE = 604800000, 60000, 100000, 10000

-- Push a note to the inbox of each process that watches a job.
local function push_to_watchers(prefix, job, note)
  for _, field in ipairs(redis.call('HKEYS', job)) do
    if field:sub(1, 6) == 'watch:' then
      local inbox = prefix .. 'inbox:' .. field:sub(7)
      if redis.call('LPUSH', inbox, note) > PUSHES then redis.call('LTRIM', inbox, 0, PUSHES - 1) end
      redis.call('PEXPIRE', inbox, PUSHED)
    end
  end
end

-- Whether this job has a place among the running jobs whose progress `status` shows: 20; one that has reported nothing
-- for ten minutes makes room.
local function shown(progress, id, now)
  local SHOWN, SILENT = 20, 600000
  if redis.call('HEXISTS', progress, id) == 1 or redis.call('HLEN', progress) < SHOWN then return true end
  local flat = redis.call('HGETALL', progress)
  for i = 1, #flat, 2 do
    local at = tonumber(flat[i + 1]:match('"at":(%d+)}$') or 0)
    if at < now - SILENT then
      redis.call('HDEL', progress, flat[i])
      return true
    end
  end
  return false
end

-- For how long the result of a job is kept, ms, as its JSON says (0: not at all); an hour if the JSON cannot be read.
local function kept_for(entry)
  local job = job_of(entry)
  if not next(job) then return 3600000 end
  local ttl = tonumber(job.result_ttl) or 0
  return ttl >= 0.001 and math.floor(math.min(ttl, 1e9) * 1000) or 0
end

-- The lock of a unique job is `unique:<name>`: "<mode>|<id>". Modes: e (until the job has ended), s (until it is first
-- taken), t (for a time; the job's entry has no mark of it). Returns the id and the mode.
local function lock_of(prefix, name)
  local lock = redis.call('GET', prefix .. 'unique:' .. name)
  if lock then return lock:sub(3), lock:sub(1, 1) end
end

-- Let the lock of this job fall, unless another job holds it: one of mode s has lost it to the next when it was taken.
local function unlock(prefix, name, id)
  if lock_of(prefix, name) == id then redis.call('DEL', prefix .. 'unique:' .. name) end
end

-- A marked job is with this consumer now: where it is is noted, and a lock of mode s falls.
local function note_taken(prefix, entry, consumer, tag, now)
  local _, _, _, id, _, _, _, mode, name = parse(entry)
  if not id then return end
  local job = prefix .. 'job:' .. id
  redis.call('HSET', job, 'consumer', consumer, 'tag', tag, 'started', now)
  redis.call('PEXPIRE', job, KEPT)
  if mode == 's' then unlock(prefix, name, id) end
end

-- The other event: a job has ended (done, failed, cancelled, expired, dropped), for whatever reason, and only once: its
-- lock falls, its result is kept for ttl ms (0: not at all; nil: as the job says), and the processes that watch it are
-- told. Every script that ends a job calls this; `key` is any key of the queue. An entry without marks costs a check of
-- one byte. A buried job has
-- ended: to trim or forget it later is no second end, and `requeue` begins its next life. `detail` is what the result
-- holds beside the state, as JSON without the braces. Large results are not pushed: a process that is told of one
-- fetches it.
local function ended(key, entry, state, detail, ttl)
  if entry:byte(1) == 123 then return end
  local _, _, _, id, _, _, _, _, name = parse(entry)
  if not id then return end
  ttl = ttl or kept_for(entry)
  local prefix = prefix_of(key)
  if name then unlock(prefix, name, id) end
  local job = prefix .. 'job:' .. id
  local result = '{"state":"' .. state .. (detail == '' and '"}' or '",' .. detail .. '}')
  push_to_watchers(prefix, job, id .. '\n' .. (#result > LARGE and ttl > 0 and '' or result))
  redis.call('DEL', job)
  if ttl > 0 then redis.call('SET', prefix .. 'result:' .. id, result, 'PX', ttl) end
end

-- When the first scheduled job is due, ms; infinity if no job is scheduled.
local function first_due(scheduled)
  return tonumber(redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2] or math.huge)
end

-- Drop waiting jobs; returns how many were dropped, and how many are left: if jobs may be tracked (`tracked` of meta),
-- at most `most` of each place are dropped, and end as cancelled.
local function drop_waiting(most, pending, scheduled, meta, bell, room, drained, suspects)
  local state = redis.call('HMGET', meta, 'order', 'tracked')
  local function size() return waiting(pending, state[1]) + redis.call('ZCARD', scheduled) + redis.call('LLEN', suspects) end
  local before = size()
  if state[2] == '1' then
    local entries, length, parked = take(pending, state[1], most), 0, 0
    local flat, lone = redis.call('ZPOPMIN', scheduled, most), redis.call('RPOP', suspects, most) or {}
    for i = 1, #flat, 2 do
      if flat[i]:sub(1, 1) == 'p' then parked = parked + 1 end
      entries[#entries + 1] = flat[i]:match('^%a%d+|(.*)$') or flat[i]
    end
    for _, entry in ipairs(entries) do length = length + #entry end
    for _, list in ipairs({entries, lone}) do
      for _, entry in ipairs(list) do ended(meta, entry, 'cancelled', '') end
    end
    redis.call('HINCRBY', meta, 'bytes', 0 - length)  -- `-length` may be -0, which is no number to Redis
    if parked > 0 then redis.call('HINCRBY', meta, 'parked', -parked) end
    if #lone > 0 then redis.call('HINCRBY', meta, 'suspects', -#lone) end
  else
    redis.call('UNLINK', pending, scheduled, suspects)
  end
  local left = size()
  if left == 0 then
    redis.call('UNLINK', bell)
    redis.call('HDEL', meta, 'bytes', 'parked', 'suspects')
  end
  if before > left then redis.call('HINCRBY', meta, 'purged', before - left) end
  ring_room(pending, scheduled, meta, room)
  ring_drained(pending, scheduled, meta, drained)
  return before - left, left
end

-- Whether callbacks are to be put when the job ends.
local function has_callbacks(entry)
  local callbacks = job_of(entry)['then']
  return type(callbacks) == 'table' and next(callbacks) ~= nil
end

-- What is to be taken in place of a marked entry whose turn has come: nil if it has expired, and so has ended. A job with
-- callbacks is taken all the same, marked "?0": its consumer puts them and does not run it.
local function turn(meta, entry, now)
  local _, _, _, _, _, unknown, _, _, _, expires = parse(entry)
  if not expires or expires == 0 or expires > now or unknown ~= '' then return entry end
  if has_callbacks(entry) then return (entry:gsub('%?%d+{', '?0{', 1)) end
  redis.call('HINCRBY', meta, 'expired', 1)
  return ended(meta, entry, 'expired', '')
end

-- Whether this call has noted in meta that there are entries of format 2.
local noted = false

-- A job that is about to be put: its entry, the id of the job that keeps it out ('': it is not known; nil: no job does),
-- and, if it is unique, what to call once it is in. In front of an entry may stand what is not kept: "f" and 16 bytes (it
-- is put once for ever), or "t <ms> <name> <id> " (once in this time).
local function claim(meta, text)
  local first, prefix = text:byte(1), prefix_of(meta)
  if first == 123 then return text end
  if first == 102 then
    local field = text:sub(2, 17)
    local known = redis.call('HEXISTS', prefix .. 'seen', field) == 1
    return text:sub(18), known and '' or nil, function() redis.call('HSET', prefix .. 'seen', field, '') end
  end
  if first == 116 then
    local lasts, name, id, entry = text:match('^t (%d+) (%S+) (%S+) (.*)$')
    local function lock() redis.call('SET', prefix .. 'unique:' .. name, 't|' .. id, 'PX', lasts) end
    return entry, (lock_of(prefix, name)), lock
  end
  local _, _, _, id, _, _, _, mode, name, expires = parse(text)
  if not name and not expires then return text end
  local function lock()
    if not noted then redis.call('HSET', meta, 'marked', 1, 'tracked', 1, 'format', FORMAT) end
    noted = true
    if name then redis.call('SET', prefix .. 'unique:' .. name, mode .. '|' .. id) end
  end
  return text, name and lock_of(prefix, name) or nil, lock
end

-- Of jobs that follow from another step those that no lock keeps out, with their locks.
local function admitted(meta, texts)
  local entries = {}
  for _, text in ipairs(texts) do
    local entry, holder, lock = claim(meta, text)
    if holder then
      redis.call('HINCRBY', meta, 'duplicates', 1)
    else
      entries[#entries + 1] = entry
      if lock then lock() end
    end
  end
  return entries
end

local function text_of(value) return type(value) == 'string' and value or cjson.null end

-- Charge an entry with what died while the job ran ('consumers', 'processes', or whole 'workers', which are counted
-- apart); returns the entry, and a report (JSON, one line) if it is to be buried for that, because it has `most` now.
-- A job with callbacks waits again instead: the consumer that takes it puts them, and buries it without running it. The
-- third that is returned is then true. So does a job with unknown marks: only the newer version knows what its end has to
-- release. The fourth: whether the job is to run alone.
local function crash(entry, meta, consumer, died, how, where, most)
  local worker = died == 'workers'
  local attempts, crashes, deaths, unknown
  entry, attempts, crashes, deaths, unknown = charged(entry, 0, worker and 0 or 1, worker and 1 or 0)
  if not attempts then return entry end
  local count, alone = worker and deaths or crashes, crashes >= SUSPECT or deaths >= UNLUCKY
  if count < most or unknown ~= '' then return entry, nil, nil, alone end
  if tracked(entry) and has_callbacks(entry) then return entry, nil, true, alone end
  local job = job_of(entry)
  local what = count == 1 and died:match('^(.-)e?s$') or died
  local why = string.format('%d %s died while it ran; the last: %s', count, what, how)
  ended(meta, entry, 'failed', '"error":' .. cjson.encode({type = 'poison', message = why, traceback = where}))
  return entry, cjson.encode({
    id = text_of(job.id), task = text_of(job.task), attempts = attempts + crashes + deaths,
    crashes = crashes, error = 'poison: ' .. why, traceback = where, consumer = consumer,
  })
end

-- Leave a notice of a failed run, for a consumer that calls the hooks of its app: the newest 1,000, for a week. `entry`
-- has been charged for the run; `after` is the hook after on_failure (empty: the consumer that buries the job calls it).
local function leave_notice(key, entry, said, where, after)
  local attempts, crashes, at, _, _, _, deaths = parse(entry)
  local job, notices = job_of(entry), prefix_of(key) .. 'notices'
  if not at or type(job.id) ~= 'string' or type(job.task) ~= 'string' then return end
  local notice = cjson.encode({
    id = job.id, task = job.task, attempt = attempts + crashes + deaths, error = said, traceback = where, next = after,
  })
  redis.call('RPUSH', notices, notice .. '\n' .. (#entry > LARGE and '' or entry))
  redis.call('LTRIM', notices, -1000, -1)
  redis.call('PEXPIRE', notices, MARKED)
end
