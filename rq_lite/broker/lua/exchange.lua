-- exchange: ack the jobs that a consumer has done, and take as many as it has room for; several queues, in this order.
--           An ack is for a job that is done and not tracked: its entry is not read.
-- KEYS    for each queue: pending  scheduled  meta  consumers  inflight:<consumer>  bell  room  drained
-- ARGV    1 consumer  2 want, jobs at most in all (0: ack only)  3 bytes of jobs at most in the whole answer
--         then for each queue: n  n delivery tags to ack
-- returns for each queue {OK | PART | NOLEASE | NEWER, stale acks, tag before the first job, jobs, cancels, closed};
--         `cancels` is that of meta ('': absent, or nothing was to be taken); `closed` is -1, or, if the queue was shut
--         down and nothing was taken, how many jobs still wait in any place. PART: the limit of bytes kept jobs back. A
--         job that is larger than a whole answer may be is booked; the reply has nil for it, and `piece` reads it
-- oom     allowed
-- callers Broker.exchange
local consumer, want, most, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now_ms()
local at, q, sent, replies = 4, 1, 0, {}

local function ack(inflight, from, to)
  local gone = 0
  for i = from, to, 1000 do gone = gone + redis.call('HDEL', inflight, unpack(ARGV, i, math.min(i + 999, to))) end
  return gone
end

-- Book the jobs on the consumer, and put back those that do not fit in this answer; `ranked` are the members and scores
-- of a priority queue. Returns the tag before the first and the sum of their lengths.
local function book(inflight, meta, jobs, pending, ranked)
  local tag, length, pairs_ = redis.call('HINCRBY', meta, 'tag', #jobs) - #jobs, 0, {}
  for i, job in ipairs(jobs) do
    length = length + #job
    if length > most and sent + i > 1 then
      length = length - #job
      redis.call('HINCRBY', meta, 'tag', i - 1 - #jobs)
      for k = #jobs, i, -1 do
        if ranked then
          redis.call('ZADD', pending, ranked[2 * k], ranked[2 * k - 1])
        else
          redis.call('RPUSH', pending, jobs[k])
        end
        jobs[k] = nil
      end
      break
    end
    pairs_[2 * i - 1], pairs_[2 * i] = tag + i, job
    if job:byte(1) ~= 123 then  -- most are plain, and a call for each would cost
      note_taken(prefix_of(meta), job, consumer, tag + i, now)
    end
  end
  for i = 1, #pairs_, 1000 do redis.call('HSET', inflight, unpack(pairs_, i, math.min(i + 999, #pairs_))) end
  return tag, length
end

-- See to the turn of each job that was popped: some end, or give way to one that replaces them. Returns how many are gone,
-- and by how many bytes their entries are shorter now.
local function have_turns(meta, jobs, ranked)
  local kept, freed = 0, 0
  for i = 1, #jobs do
    local job = jobs[i]
    local entry = job:byte(1) == 123 and job or turn(meta, job, now)
    if entry then
      kept = kept + 1
      jobs[kept] = entry
      freed = freed + #job - #entry
      if ranked then
        -- Should it be put back, then at the place of the one that was popped.
        ranked[2 * kept - 1] = entry == job and ranked[2 * i - 1] or ranked[2 * i - 1]:sub(1, 18) .. entry
        ranked[2 * kept] = ranked[2 * i]
      end
    else
      freed = freed + #job
    end
  end
  local gone = #jobs - kept
  for i = #jobs, kept + 1, -1 do jobs[i] = nil end
  return gone, freed
end

while at <= #ARGV do
  local pending, scheduled, meta, consumers, inflight, bell, room, drained = unpack(KEYS, q, q + 7)
  local acks = tonumber(ARGV[at])
  local acked = ack(inflight, at + 1, at + acks)
  local code, tag, jobs, cancels, closed, left, ranked = OK, 0, {}, '', -1
  local gone, freed = 0, 0
  if want > 0 then
    local lease = redis.call('ZSCORE', consumers, consumer)
    local state = redis.call('HMGET', meta, 'paused', 'order', 'format', 'cancels', 'bytes', 'marked')
    if newer(state[3]) then
      code = NEWER
    elseif not lease or tonumber(lease) <= now then
      code = NOLEASE
    else
      cancels = state[4] or ''
      left = waiting(pending, state[2])
      if state[1] ~= '1' and left > 0 then
        local some, bytes = want, tonumber(state[5] or 0)
        -- Of large jobs pop only as many as fit by their average size: the others would be put back.
        if bytes > most and bytes * want > most * left then
          some = math.min(want, math.max(1, math.floor(most * (left + redis.call('ZCARD', scheduled)) / bytes)))
        end
        jobs, ranked = take(pending, state[2], some)
        if state[6] then gone, freed = have_turns(meta, jobs, ranked) end
      end
      if #jobs == 0 and gone == 0 then
        if state[1] ~= '1' then redis.call('DEL', bell) end
        local apart = redis.call('HMGET', meta, 'closed', 'suspects')
        if apart[1] then closed = left + redis.call('ZCARD', scheduled) + tonumber(apart[2] or 0) end
      end
    end
  end
  local came = #jobs
  if came + gone > 0 then
    local length = 0
    if came > 0 then tag, length = book(inflight, meta, jobs, pending, ranked) end
    came = #jobs
    left = left - came - gone
    if came > 0 and length > most then jobs = {false} end
    if left > 0 and came < want then
      code, want = PART, 0
    else
      want, most, sent = want - came, most - length, sent + length
    end
    -- Entries that were pushed by hand were never counted.
    if redis.call('HINCRBY', meta, 'bytes', 0 - length - freed) < 0 then redis.call('HSET', meta, 'bytes', 0) end
    if left > 0 then ring(bell) else redis.call('DEL', bell) end
    ring_room(pending, scheduled, meta, room)
  end
  if acked > 0 then redis.call('HINCRBY', meta, 'done', acked) end
  if acked ~= came then redis.call('HINCRBY', meta, 'inflight', came - acked) end
  if (acked > 0 or gone > 0) and came == 0 then ring_drained(pending, scheduled, meta, drained) end
  if acks > acked then redis.call('HINCRBY', meta, 'stale', acks - acked) end
  replies[#replies + 1] = {code, acks - acked, tag, jobs, cancels, closed}
  at, q = at + 1 + acks, q + 8
end
return replies
