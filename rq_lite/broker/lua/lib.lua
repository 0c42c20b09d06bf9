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

-- How many jobs are unfinished: waiting (suspects, and those in `latest`, too), scheduled or in flight.
local function unfinished(pending, scheduled, meta)
  local elsewhere = redis.call('HMGET', meta, 'inflight', 'suspects', 'order', 'latest')
  return waiting(pending, elsewhere[3]) + redis.call('ZCARD', scheduled)
    + tonumber(elsewhere[1] or 0) + tonumber(elsewhere[2] or 0) + tonumber(elsewhere[4] or 0)
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

-- Whether callbacks are to be put when the job ends.
local function has_callbacks(entry)
  local callbacks = job_of(entry)['then']
  return type(callbacks) == 'table' and next(callbacks) ~= nil
end

-- When the first scheduled job is due, ms; infinity if no job is scheduled.
local function first_due(scheduled)
  return tonumber(redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2] or math.huge)
end

-- The lock of a unique job is `unique:<name>`: "<mode>|<id>". Modes: e (until the job has ended), s (until it is first
-- taken), t (for a time; the job's entry has no mark of it). "|<due>|<deadline>" may follow, ms: when the job is due, if
-- it was scheduled (0: it gives way to no newer job before its end), and how long newer jobs that replace it may put that
-- off. Returns the id, the mode, and these two.
local function lock_of(prefix, name)
  local lock = redis.call('GET', prefix .. 'unique:' .. name)
  if not lock then return end
  local mode, id, due, deadline = lock:match('^(.)|([^|]*)|?(%d*)|?(%d*)$')
  return id, mode, tonumber(due), tonumber(deadline)
end

local function hold(prefix, name, mode, id, due, deadline)
  local function ms(time) return time and string.format('%.0f', time) or '' end
  local times = (due or deadline) and '|' .. ms(due) .. '|' .. ms(deadline) or ''
  redis.call('SET', prefix .. 'unique:' .. name, mode .. '|' .. id .. times)
end

-- A job that replaces another of its key waits in `latest` until that gives way: name of the lock -> "<due, ms; 0:
-- now>|<entry>". It takes no room; meta counts it (`latest`) and its bytes (`latest_bytes`).
local function keep_latest(meta, name, due, entry)
  redis.call('HSET', prefix_of(meta) .. 'latest', name, string.format('%.0f|', due) .. entry)
  redis.call('HINCRBY', meta, 'latest', 1)
  redis.call('HINCRBY', meta, 'latest_bytes', #entry)
end

-- Take it out: its entry, and when it is due; nil: there is no such job.
local function take_latest(meta, name)
  local latest = prefix_of(meta) .. 'latest'
  local kept = redis.call('HGET', latest, name)
  if not kept then return end
  local due, entry = kept:match('^(%d+)|(.*)$')
  redis.call('HDEL', latest, name)
  redis.call('HINCRBY', meta, 'latest', -1)
  redis.call('HINCRBY', meta, 'latest_bytes', -#entry)
  return entry, tonumber(due)
end

-- A marked job is with this consumer now: where it is is noted, and a lock of mode s falls. A lock of mode e forgets when
-- its job was due.
local function note_taken(prefix, entry, consumer, tag, now)
  local _, _, _, id, _, _, _, mode, name = parse(entry)
  if not id then return end
  local job = prefix .. 'job:' .. id
  redis.call('HSET', job, 'consumer', consumer, 'tag', tag, 'started', now)
  redis.call('PEXPIRE', job, KEPT)
  if not name then return end
  local holder, _, due, deadline = lock_of(prefix, name)
  -- Of mode s it may be another's: this job has lost it when it was taken before.
  if holder ~= id then return end
  if mode == 's' then
    redis.call('DEL', prefix .. 'unique:' .. name)
  elseif due or deadline then
    hold(prefix, name, mode, id, due == 0 and 0 or nil)
  end
end

-- Note in a job's lock when it is due, if it was scheduled again, or 0: see lock_of.
local function note_due(prefix, entry, due)
  local _, _, _, id, _, _, _, mode, name = parse(entry)
  if not name then return end
  local holder, _, _, deadline = lock_of(prefix, name)
  if holder == id then hold(prefix, name, mode, id, due, deadline) end
end

-- What every end does: the result is kept for ttl ms (0: not at all; nil: as the job says), and the processes that watch
-- the job are told. `detail` is what the result holds beside the state, as JSON without the braces. Large results are not
-- pushed: a process that is told of one fetches it.
local function over(prefix, id, entry, state, detail, ttl)
  ttl = ttl or kept_for(entry)
  local job = prefix .. 'job:' .. id
  local result = '{"state":"' .. state .. (detail == '' and '"}' or '",' .. detail .. '}')
  push_to_watchers(prefix, job, id .. '\n' .. (#result > LARGE and ttl > 0 and '' or result))
  redis.call('DEL', job)
  if ttl > 0 then redis.call('SET', prefix .. 'result:' .. id, result, 'PX', ttl) end
end

-- The heir of a lock: the job in `latest`, taken out, and when it is due. One that was cancelled or has expired (and has
-- no callbacks, which its own turn would put) ends here, and leaves no heir.
local function heir_of(meta, name, now)
  local entry, due = take_latest(meta, name)
  if not entry then return end
  local prefix = prefix_of(meta)
  local _, _, _, id, _, _, _, _, _, expires = parse(entry)
  local state
  if redis.call('ZREM', prefix .. 'cancelled', id) == 1 then
    state = 'cancelled'
  elseif expires and expires <= now and not has_callbacks(entry) then
    state = 'expired'
  else
    return entry, due
  end
  redis.call('HINCRBY', meta, state, 1)
  over(prefix, id, entry, state, '')
end

-- Pass a lock to its heir: returned if it is due, else scheduled.
local function inherit(meta, name, entry, due, deadline, now)
  local prefix = prefix_of(meta)
  local _, _, _, id, _, _, _, mode = parse(entry)
  hold(prefix, name, mode, id, due > now and due or nil, deadline)
  if due <= now then return entry end
  local scheduled = prefix .. 'scheduled'
  if due < first_due(scheduled) then ring(prefix .. 'alarm') end
  schedule(scheduled, 's', redis.call('HINCRBY', meta, 'tag', 1), due, entry)
  redis.call('HINCRBY', meta, 'bytes', #entry)
end

-- Let a job wait at the end of its queue, whatever the bound.
local function join_end(meta, entry)
  local prefix = prefix_of(meta)
  local usual, length = wait_again('LPUSH', {entry}, prefix .. 'pending', prefix .. 'suspects', meta)
  redis.call('HINCRBY', meta, 'bytes', length)
  ring_bell(prefix .. 'bell', usual)
end

-- The other event: a job has ended (done, failed, cancelled, expired, dropped; one that is replaced ends in `yield`), for
-- whatever reason, and only once: `over`, and its lock falls, or passes to the job that replaces it. `whole`: that ends,
-- too, in the same way (where a place is emptied); returns how many did, 0 or 1. Every script that ends a job calls this;
-- `key` is any key of the queue. An entry without marks costs a check of one byte. A buried job has ended: to trim or
-- forget it later is no second end, and `requeue` begins its next life.
local function ended(key, entry, state, detail, ttl, whole)
  if entry:byte(1) == 123 then return 0 end
  local _, _, _, id, _, _, _, _, name = parse(entry)
  if not id then return 0 end
  local prefix = prefix_of(key)
  over(prefix, id, entry, state, detail, ttl)
  if not name then return 0 end
  local holder, _, _, deadline = lock_of(prefix, name)
  if holder ~= id then return 0 end
  local meta, heir = prefix .. 'meta', nil
  if whole then
    heir = take_latest(meta, name)
    if heir then over(prefix, tracked(heir), heir, state, detail) end
  elseif redis.call('HEXISTS', prefix .. 'latest', name) == 1 then
    local now, due = now_ms(), nil
    heir, due = heir_of(meta, name, now)
    if heir then
      heir = inherit(meta, name, heir, due, deadline, now)
      if heir then join_end(meta, heir) end
      return 0
    end
  end
  redis.call('DEL', prefix .. 'unique:' .. name)
  return heir and 1 or 0
end

-- The job that goes on in place of this one, whose turn has come or which comes back from its consumer: a newer one of its
-- key, if one replaces it. That has its crashes and deaths of workers, so that steady updates do not keep alive what
-- kills, and none of its attempts. Nil if it is not due, and so was scheduled.
local function yield(meta, entry, now)
  local _, crashes, _, id, _, unknown, deaths, _, name = parse(entry)
  local prefix = prefix_of(meta)
  if not name or unknown ~= '' or redis.call('HEXISTS', prefix .. 'latest', name) == 0 then return entry end
  local holder, _, at, deadline = lock_of(prefix, name)
  if holder ~= id or at == 0 then return entry end
  local heir, due = heir_of(meta, name, now)
  if not heir then return entry end
  redis.call('HINCRBY', meta, 'replaced', 1)
  over(prefix, id, entry, 'replaced', '')
  if crashes + deaths > 0 then heir = charged(heir, 0, crashes, deaths) end
  return inherit(meta, name, heir, due, deadline, now)
end

-- Drop waiting jobs; returns how many were dropped, and how many are left: if jobs may be tracked (`tracked` of meta),
-- at most `most` of each place are dropped, and end as cancelled. Those that replace running jobs come last.
local function drop_waiting(most, pending, scheduled, meta, bell, room, drained, suspects)
  local state = redis.call('HMGET', meta, 'order', 'tracked')
  local function size() return waiting(pending, state[1]) + redis.call('ZCARD', scheduled) + redis.call('LLEN', suspects) end
  local function newer_ones() return tonumber(redis.call('HGET', meta, 'latest') or 0) end
  local before = size() + newer_ones()
  if state[2] == '1' then
    local entries, length, parked = take(pending, state[1], most), 0, 0
    local flat, lone = redis.call('ZPOPMIN', scheduled, most), redis.call('RPOP', suspects, most) or {}
    for i = 1, #flat, 2 do
      if flat[i]:sub(1, 1) == 'p' then parked = parked + 1 end
      entries[#entries + 1] = flat[i]:match('^%a%d+|(.*)$') or flat[i]
    end
    for _, entry in ipairs(entries) do length = length + #entry end
    for _, list in ipairs({entries, lone}) do
      for _, entry in ipairs(list) do ended(meta, entry, 'cancelled', '', nil, true) end
    end
    if size() == 0 and newer_ones() > 0 then
      for _, name in ipairs(redis.call('HRANDFIELD', prefix_of(meta) .. 'latest', most)) do
        local entry = take_latest(meta, name)
        over(prefix_of(meta), tracked(entry), entry, 'cancelled', '')
      end
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
  left = left + newer_ones()
  if before > left then redis.call('HINCRBY', meta, 'purged', before - left) end
  ring_room(pending, scheduled, meta, room)
  ring_drained(pending, scheduled, meta, drained)
  return before - left, left
end

-- What is to be taken in place of a marked entry whose turn has come: the job that replaces it, if one does; nil if it
-- has expired, and so has ended. An expired job with callbacks is taken all the same, marked "?0": its consumer puts them
-- and does not run it.
local function turn(meta, entry, now)
  entry = yield(meta, entry, now)
  if not entry then return end
  local _, _, _, _, _, unknown, _, _, _, expires = parse(entry)
  if not expires or expires == 0 or expires > now or unknown ~= '' then return entry end
  if has_callbacks(entry) then return (entry:gsub('%?%d+{', '?0{', 1)) end
  redis.call('HINCRBY', meta, 'expired', 1)
  ended(meta, entry, 'expired', '')
end

-- Whether this call has noted in meta that there are entries of format 2.
local noted = false

-- The newest job of the key of this lock, which another job holds: that, or the one that replaces it.
local function newest(prefix, name, holder)
  local kept = holder and redis.call('HGET', prefix .. 'latest', name)
  return kept and tracked(kept:match('|(.*)$')) or holder
end

-- Put a job in the place of the one that holds its lock. If that is scheduled, it gives way at once; else the job lies in
-- `latest` until that one's turn, return or end, and an older one there ends. `due` may be put off by further ones for
-- `wait` ms in all (0: for ever) from the first on. Returns the id of the job that it replaces.
local function replace(meta, name, entry, due, wait, now)
  local prefix = prefix_of(meta)
  local holder, mode, at, deadline = lock_of(prefix, name)
  local older, instead = take_latest(meta, name), holder
  if older then
    instead = tracked(older)
    redis.call('HINCRBY', meta, 'replaced', 1)
    over(prefix, instead, older, 'replaced', '')
  end
  if wait > 0 and due > 0 and not deadline then
    deadline = now + wait
    hold(prefix, name, mode, holder, at, deadline)
  end
  keep_latest(meta, name, deadline and math.min(due, deadline) or due, entry)
  local scheduled = prefix .. 'scheduled'
  -- By its time a scheduled holder is found without a search; among more than 1,000 of one time it keeps its turn.
  for _, member in ipairs(at and redis.call('ZRANGEBYSCORE', scheduled, at, at, 'LIMIT', 0, 1000) or {}) do
    local old = member:match('^s%d+|(.*)$')
    if old and tracked(old) == holder then
      local heir = yield(meta, old, now)
      if heir ~= old then
        redis.call('ZREM', scheduled, member)
        redis.call('HINCRBY', meta, 'bytes', -#old)
        if heir then join_end(meta, heir) end
      end
      break
    end
  end
  return instead
end

-- A job that is about to be put, due at `due` (ms; 0: now): its entry, the id of the job that keeps it out ('': it is not
-- known; nil: no job does) and, if it is unique, what to call once it is in; then, if it may replace the one that keeps it
-- out, what to call for that. In front of an entry may stand what is not kept: "f" and 16 bytes (it is put once for ever),
-- "t <ms> <name> <id> " (once in this time), or "r <ms> " (it replaces; see `replace` for the ms).
local function claim(meta, text, due, now)
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
    return entry, newest(prefix, name, (lock_of(prefix, name))), lock
  end
  local wait
  if first == 114 then
    wait, text = text:match('^r (%d+) (.*)$')
    wait = tonumber(wait)
  end
  local _, _, _, id, _, _, _, mode, name, expires = parse(text)
  if not name and not expires then return text end
  local function lock()
    if not noted then redis.call('HSET', meta, 'marked', 1, 'tracked', 1, 'format', FORMAT) end
    noted = true
    local deadline = wait and wait > 0 and due > 0 and now + wait or nil
    if name then hold(prefix, name, mode, id, due > 0 and due or nil, deadline) end
  end
  local holder, held
  if name then holder, held = lock_of(prefix, name) end
  local last = newest(prefix, name, holder)
  -- Nothing replaces itself, nor a lock that lasts for a time.
  if not holder or not wait or held == 't' or holder == id or last == id then return text, last, lock end
  return text, last, lock, function() return replace(meta, name, text, due, wait, now) end
end

-- Of jobs that follow from another step those that no lock keeps out, with their locks.
local function admitted(meta, texts)
  local entries, now = {}, now_ms()
  for _, text in ipairs(texts) do
    local entry, holder, lock, instead = claim(meta, text, 0, now)
    if instead then
      instead()
      redis.call('HINCRBY', meta, 'put', 1)
    elseif holder then
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
  if tracked(entry) and has_callbacks(entry) then
    note_due(prefix_of(meta), entry, 0)  -- a newer job of its key would be buried in its place
    return entry, nil, true, alone
  end
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
