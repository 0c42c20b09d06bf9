-- finish: end deliveries of which somebody wants to hear, done or given up: with the result, the news to all who
--         wait, and the callbacks, which wait in their queues from the same moment on. No bound refuses those.
-- KEYS    1 inflight:<consumer>  2 dead  3 dead:index  4 meta  5 pending  6 scheduled  7 drained
--         then for each queue of callbacks: pending  meta  bell
-- ARGV    1 most buried jobs to keep  2 longest to keep one, ms  then for each delivery: its tag, for how long its
--         result is kept (ms; 0: not at all), state (done, failed, cancelled), what its result holds beside the state
--         (JSON without braces), report for the dead set ('': it is not buried), n, n pairs of queue (1, 2, …) and
--         entry to put there
-- returns {OK, ended, stale}
-- oom     allowed
-- callers Broker.finish
local inflight, dead, index, meta, pending, scheduled, drained = unpack(KEYS, 1, 7)
local now, buried, ended, done, stale, at = now_ms(), {}, 0, 0, 0, 3
local puts = {}
for q = 1, (#KEYS - 7) / 3 do puts[q] = {} end

while at <= #ARGV do
  local tag, ttl, state, detail, report, n = unpack(ARGV, at, at + 5)
  local after = at + 6 + 2 * tonumber(n)
  local entry = settled(inflight, tag)
  if entry then
    ended = ended + 1
    local id = tracked(entry)
    if id then end_job(prefix_of(meta), id, state, detail, tonumber(ttl)) end
    for i = at + 6, after - 1, 2 do table.insert(puts[tonumber(ARGV[i])], ARGV[i + 1]) end
    if report ~= '' then
      local b = #buried
      buried[b + 1], buried[b + 2], buried[b + 3] = tag, report, entry
    elseif state == 'done' then
      done = done + 1
    end
  else
    stale = stale + 1
  end
  at = after
end

for q, entries in ipairs(puts) do
  if #entries > 0 then
    local waiting, about, bell = unpack(KEYS, 5 + 3 * q, 7 + 3 * q)
    local usual, length = wait_again('LPUSH', entries, waiting, nil, about)
    redis.call('HINCRBY', about, 'bytes', length)
    redis.call('HINCRBY', about, 'put', #entries)
    for _, entry in ipairs(entries) do
      if tracked(entry) then redis.call('HSET', about, 'tracked', 1) end
    end
    ring_bell(bell, usual)
  end
end
if ended > 0 then
  to_dead(dead, index, meta, buried, tonumber(ARGV[1]), tonumber(ARGV[2]), now)
  if done > 0 then redis.call('HINCRBY', meta, 'done', done) end
  redis.call('HINCRBY', meta, 'inflight', -ended)
  ring_drained(pending, scheduled, meta, drained)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, ended, stale}
