-- exchange: settle what a consumer has finished and take what it has room for; several queues, in this order.
-- KEYS    for each queue: pending  scheduled  meta  consumers  inflight:<consumer>  bell  room  drained
-- ARGV    1 consumer  2 want, jobs at most in all (0: settle only)  then for each queue: n  n delivery tags to ack
-- returns for each queue {OK | NOLEASE, stale acks, tag before the first job, jobs, cancels, closed}; `cancels` is that of
--         meta ('': not asked, none); `closed` is -1, or, once the queue was shut down and nothing was taken, how many
--         jobs wait somewhere
-- oom     allowed
-- callers Broker.exchange
local consumer, want, now = ARGV[1], tonumber(ARGV[2]), now_ms()
local at, replies = 3, {}

local function ack(inflight, from, to)
  local gone = 0
  for i = from, to, 1000 do gone = gone + redis.call('HDEL', inflight, unpack(ARGV, i, math.min(i + 999, to))) end
  return gone
end

-- Books the jobs on their owner; returns the tag before the first and the sum of their lengths.
local function book(inflight, meta, jobs)
  local tag, length, pairs_ = redis.call('HINCRBY', meta, 'tag', #jobs) - #jobs, 0, {}
  for i, job in ipairs(jobs) do
    pairs_[2 * i - 1], pairs_[2 * i] = tag + i, job
    length = length + #job
    local id = job:byte(1) ~= 123 and tracked(job)  -- most are plain, and a call for each would cost
    if id then note_taken(prefix_of(meta), id, consumer, tag + i, now) end
  end
  for i = 1, #pairs_, 1000 do redis.call('HSET', inflight, unpack(pairs_, i, math.min(i + 999, #pairs_))) end
  return tag, length
end

for q = 1, #KEYS, 8 do
  local pending, scheduled, meta, consumers, inflight, bell, room, drained = unpack(KEYS, q, q + 7)
  local acks = tonumber(ARGV[at])
  local acked = ack(inflight, at + 1, at + acks)
  local code, tag, jobs, cancels, closed = OK, 0, {}, '', -1
  if want > 0 then
    local lease = redis.call('ZSCORE', consumers, consumer)
    if not lease or tonumber(lease) <= now then
      code = NOLEASE
    else
      local state = redis.call('HMGET', meta, 'paused', 'order', 'closed', 'suspects', 'cancels')
      cancels = state[5] or ''
      if state[1] ~= '1' then jobs = take(pending, state[2], want) end
      if #jobs == 0 then
        if state[1] ~= '1' then redis.call('DEL', bell) end
        if state[3] then
          closed = waiting(pending, state[2]) + redis.call('ZCARD', scheduled) + tonumber(state[4] or 0)
        end
      end
    end
  end
  if #jobs > 0 then
    local length
    tag, length = book(inflight, meta, jobs)
    want = want - #jobs
    -- What was pushed by hand was never counted.
    if redis.call('HINCRBY', meta, 'bytes', 0 - length) < 0 then redis.call('HSET', meta, 'bytes', 0) end
    if redis.call('EXISTS', pending) == 1 then ring(bell) else redis.call('DEL', bell) end
    ring_room(pending, scheduled, meta, room)
  end
  if acked > 0 then redis.call('HINCRBY', meta, 'done', acked) end
  if acked ~= #jobs then redis.call('HINCRBY', meta, 'inflight', #jobs - acked) end
  if acked > 0 and #jobs == 0 then ring_drained(pending, scheduled, meta, drained) end
  if acks > acked then redis.call('HINCRBY', meta, 'stale', acks - acked) end
  replies[#replies + 1] = {code, acks - acked, tag, jobs, cancels, closed}
  at = at + 1 + acks
end
return replies
