-- cancel: drop a job that waits, if it is near either end of the place where it waits, or is to replace another. Any other
--         job is marked: the
--         consumer that takes it drops it, and consumers are called, so that a running job is interrupted.
-- KEYS    1 pending  2 scheduled  3 suspects  4 meta  5 consumers  6 room  7 drained  8 cancelled  9 job:<id>
--         10 result:<id>
-- ARGV    1 id  2 the id as JSON, with its quotes  3 '1': a job that is known to run is left alone
-- returns {OK, removed | interrupting | marked | running (it was left alone) | unknown} | {NEWER}
-- oom     allowed
-- callers Broker.cancel
local pending, scheduled, suspects, meta, consumers, room, drained, cancelled, job, result = unpack(KEYS)
local id, written, prefix, now = ARGV[1], ARGV[2], prefix_of(meta), now_ms()
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
trim_marks(cancelled, now)

-- However long the queue is, at most FAR entries and HEAVY bytes of each end are searched. A job's id is within its
-- first EARLY bytes; to cut the rest off pays only for jobs above LONG bytes.
local FAR, HEAVY, EARLY, LONG = 1000, 500000, 700, 4000
local whole = true

local function entry_of(member) return member:match('^%a%d+|(.*)$') or member end

local function is_it(member)
  if not (#member > LONG and member:sub(1, EARLY) or member):find(written, 1, true) then return false end
  return job_of(entry_of(member)).id == id
end

-- Search one end of a list or a sorted set: the member that is this job; else nil, and whether every member was
-- searched.
local function search(read, length)
  local seen, bytes, step = 0, 0, 4
  while seen < math.min(length, FAR) and bytes < HEAVY do
    local found = read(seen, seen + math.min(step, FAR - seen) - 1)
    for _, member in ipairs(found) do
      seen, bytes = seen + 1, bytes + #member
      if is_it(member) then return member end
    end
    step = math.max(1, math.min(200, math.floor(100000 * seen / bytes)))
  end
  return nil, seen >= length
end

-- Remove the job from `key`; returns its member, or nil.
local function remove(key)
  local kind = redis.call('TYPE', key).ok
  local count, member, all
  if kind == 'list' then
    count = redis.call('LLEN', key)
    member, all = search(function(from, to) return redis.call('LRANGE', key, -1 - to, -1 - from) end, count)
    if member then redis.call('LREM', key, -1, member) return member end
    if not all then
      member = search(function(from, to) return redis.call('LRANGE', key, from, to) end, count)
      if member then redis.call('LREM', key, 1, member) return member end
    end
  elseif kind == 'zset' then
    count = redis.call('ZCARD', key)
    member, all = search(function(from, to) return redis.call('ZRANGE', key, from, to) end, count)
    if not (member or all) then
      member = search(function(from, to) return redis.call('ZREVRANGE', key, from, to) end, count)
    end
    if member then redis.call('ZREM', key, member) return member end
  else
    all = true
  end
  whole = whole and all
end

-- Remove the job from those that replace others, if they are few; returns its entry, or nil.
local function remove_latest()
  local counts = redis.call('HMGET', meta, 'latest', 'latest_bytes')
  if tonumber(counts[1] or 0) == 0 then return end
  if tonumber(counts[1]) > FAR or tonumber(counts[2]) > HEAVY then
    whole = false
    return
  end
  local flat = redis.call('HGETALL', prefix .. 'latest')
  for i = 1, #flat, 2 do
    local entry = flat[i + 1]:match('|(.*)$')
    if is_it(entry) then return (take_latest(meta, flat[i])) end
  end
end

local place = pending
local member = remove(pending)
if not member then place, member = scheduled, remove(scheduled) end
if not member then place, member = suspects, remove(suspects) end
if not member then place, member = nil, remove_latest() end
if member then
  local entry = entry_of(member)
  if not place then
    -- It took no room.
  elseif place == suspects then
    redis.call('HINCRBY', meta, 'suspects', -1)
  else
    redis.call('HINCRBY', meta, 'bytes', 0 - #entry)
    if place == scheduled and member:sub(1, 1) == 'p' then redis.call('HINCRBY', meta, 'parked', -1) end
  end
  redis.call('HINCRBY', meta, 'cancelled', 1)
  redis.call('ZREM', cancelled, id)
  ended(meta, entry, 'cancelled', '')
  ring_room(pending, scheduled, meta, room)
  ring_drained(pending, scheduled, meta, drained)
  return {OK, 'removed'}
end

-- Where a tracked job runs is in its `job:<id>`.
local at = redis.call('HMGET', job, 'consumer', 'tag')
local runs = at[1] and at[2] and redis.call('HEXISTS', prefix .. 'inflight:' .. at[1], at[2]) == 1
local known = redis.call('HMGET', meta, 'inflight', 'cancels')
if not runs and (redis.call('EXISTS', result) == 1 or (whole and tonumber(known[1] or 0) <= 0)) then
  return {OK, 'unknown'}
end
if runs and ARGV[3] == '1' then return {OK, 'running'} end
-- The time of this mark, never the same twice: by it consumers know which marks they have not read yet.
local stamp = string.format('%d', math.max(now, tonumber(known[2] or 0) + 1))
redis.call('ZADD', cancelled, stamp, id)
redis.call('HSET', meta, 'cancels', stamp)
for _, consumer in ipairs(runs and {at[1]} or redis.call('ZRANGEBYSCORE', consumers, now, '+inf', 'LIMIT', 0, 256)) do
  local calls = prefix .. 'calls:' .. consumer
  if redis.call('LLEN', calls) < 1000 then redis.call('RPUSH', calls, id) end
  redis.call('PEXPIRE', calls, 60000)
end
return {OK, runs and 'interrupting' or 'marked'}
