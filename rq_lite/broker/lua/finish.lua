-- finish: end deliveries: done, failed (given up: to the dead set, which is capped), cancelled or expired. A tracked job
--         ends with its result, a note to each process that watches it, and its callbacks, which are put in the same step,
--         as are the follow-ups of a run. No bound refuses these; a lock does.
-- KEYS    1 inflight:<consumer>  2 dead  3 dead:index  4 meta  5 pending  6 scheduled  7 drained  8 cancelled
--         then for each queue of callbacks: pending  meta  bell
-- ARGV    1 most buried jobs to keep  2 longest to keep one, ms  then for each delivery: its tag, state (done, failed,
--         cancelled, expired), for how long its result is kept (ms; 0: not at all; '': as the job itself says), what its result
--         holds beside the state (JSON without braces), report for the dead set, if it failed; its id, if it
--         was cancelled; n, n pairs of queue (1, 2, …) and entry to put there
-- returns {OK, finished, stale}
-- oom     allowed
-- callers Broker.finish
local inflight, dead, index, meta, pending, scheduled, drained, cancelled = unpack(KEYS, 1, 8)
local now, buried, finished, done, dropped, expired, stale, at = now_ms(), {}, 0, 0, 0, 0, 0, 3
local puts, targets = {}, 0

while at <= #ARGV do
  local tag, state, ttl, detail, report, id, n = unpack(ARGV, at, at + 6)
  local after = at + 7 + 2 * tonumber(n)
  local entry = settled(inflight, tag)
  if entry then
    finished = finished + 1
    ended(meta, entry, state, detail, tonumber(ttl))
    for i = at + 7, after - 1, 2 do
      local q = tonumber(ARGV[i])
      puts[q], targets = puts[q] or {}, math.max(targets, q)
      table.insert(puts[q], ARGV[i + 1])
    end
    if state == 'expired' then
      expired = expired + 1
    elseif state == 'failed' then
      local b = #buried
      buried[b + 1], buried[b + 2], buried[b + 3] = tag, report, entry
    elseif state == 'cancelled' then
      redis.call('ZREM', cancelled, id)
      dropped = dropped + 1
    else
      done = done + 1
    end
  else
    stale = stale + 1
  end
  at = after
end

for q = 1, targets do
  local entries = puts[q]
  if entries then
    local waiting, about, bell = unpack(KEYS, 6 + 3 * q, 8 + 3 * q)
    entries = admitted(about, entries)
    local usual, length = wait_again('LPUSH', entries, waiting, nil, about)
    redis.call('HINCRBY', about, 'bytes', length)
    redis.call('HINCRBY', about, 'put', #entries)
    for _, entry in ipairs(entries) do
      if tracked(entry) then redis.call('HSET', about, 'tracked', 1) end
    end
    ring_bell(bell, usual)
  end
end
if finished > 0 then
  to_dead(dead, index, meta, buried, tonumber(ARGV[1]), tonumber(ARGV[2]), now)
  if done > 0 then redis.call('HINCRBY', meta, 'done', done) end
  if expired > 0 then redis.call('HINCRBY', meta, 'expired', expired) end
  if dropped > 0 then redis.call('HINCRBY', meta, 'cancelled', dropped) end
  redis.call('HINCRBY', meta, 'inflight', -finished)
  ring_drained(pending, scheduled, meta, drained)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, finished, stale}
