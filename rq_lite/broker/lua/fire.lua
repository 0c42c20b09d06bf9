-- fire: put the jobs of a schedule's slots, whatever the queue's bound, and move the schedule on to its next slot; only
--       if its definition and its slot are still those from which the caller has made the jobs. So each slot is fired once.
--       Nothing is put into a queue that was shut down: the schedule stays as it is, and its slots become missed ones.
-- KEYS    1 rq-lite:{schedules}  2 rq-lite:{schedules}:due  3 rq-lite:{schedules}:last  4 pending  5 suspects  6 meta  7 bell
-- ARGV    1 name  2 its definition  3 the slot that was due, ms  4 the next one, ms  5 the last that is fired, ms ('': none)
--         6… encoded jobs
-- returns {OK, jobs} | {MOVED, 0} | {CLOSED, 0}
-- oom     refused
-- callers Broker.fire
local name, slot, last = ARGV[1], tonumber(ARGV[3]), ARGV[5]
local due = tonumber(redis.call('ZSCORE', KEYS[2], name) or -1)
if due ~= slot or (redis.call('HGET', KEYS[1], name) or '') ~= ARGV[2] then return {MOVED, 0} end
local entries = {unpack(ARGV, 6)}
if #entries > 0 and redis.call('HEXISTS', KEYS[6], 'closed') == 1 then return {CLOSED, 0} end
if #entries > 0 then
  entries = admitted(KEYS[6], entries)
  local usual, length = wait_again('LPUSH', entries, KEYS[4], KEYS[5], KEYS[6])
  redis.call('HINCRBY', KEYS[6], 'bytes', length)
  redis.call('HINCRBY', KEYS[6], 'put', #entries)
  ring_bell(KEYS[7], usual)
end
if last ~= '' then redis.call('HSET', KEYS[3], name, last) end
redis.call('ZADD', KEYS[2], ARGV[4], name)
return {OK, #entries}
