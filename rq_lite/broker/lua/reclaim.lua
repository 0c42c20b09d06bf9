-- reclaim: return the jobs of a dead consumer to the head of the queue, a batch at a time. Those that may have
--          killed it are charged a crash: with the second they are suspects and run alone, with the last that their
--          task allows they are buried (by the next consumer, if callbacks are to be put). If its whole worker died,
--          nothing points at its jobs: each is charged the death of a worker, runs alone from the fifth on, and is
--          buried with the last that the caller allows. Once its jobs are gone the consumer is forgotten.
-- KEYS    1 inflight:<consumer>  2 pending  3 meta  4 consumers  5 bell  6 suspects  7 dead  8 dead:index
--         9 scheduled  10 drained
-- ARGV    1 consumer  2 jobs at most  3 certain (1: known to be dead; 0: only if its lease has ended)
--         4 charged (all, none, or the delivery tags that are to blame: 3,4,5)  5 how it died  6 where it was then
--         7 cursor (0, then what the last call returned)  8 most buried jobs to keep  9 longest to keep one, ms
--         10 what died: consumers, or workers (the whole worker)  11 with which crash, or death of a worker, a job is
--         buried (0: never)  12 1: leave a notice of each charged job, for hooks  13… pairs of a task and what it says
--         instead of 11
-- returns {OK, reclaimed, left, cursor, suspects among them, buried, the jobs to be named: for at most 10 of those that
--         are suspects or buried now, and for the only one that was charged: {id, task, crashes, deaths of workers,
--         buried (1)}} | {ALIVE}
-- oom     allowed
-- callers Broker.reclaim
local inflight, pending, meta, consumers, bell, suspects, dead, index, scheduled, drained = unpack(KEYS)
local consumer, most, certain, blamed = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', {}
local died, usually, noting, limits = ARGV[10], tonumber(ARGV[11]), ARGV[12] == '1', {}
for i = 13, #ARGV, 2 do limits[ARGV[i]] = tonumber(ARGV[i + 1]) end
for tag in string.gmatch(ARGV[4], '%d+') do blamed[tonumber(tag)] = true end
local now = now_ms()
local lease = redis.call('ZSCORE', consumers, consumer)
if lease and not certain and tonumber(lease) > now then return {ALIVE} end

-- Without a lease it takes nothing more, even if a request of it is still on its way.
redis.call('ZREM', consumers, consumer)
-- Scan from where the last call ended: a large hash that was emptied at its beginning is slow to scan from there.
local tags, found, cursor = {}, {}, ARGV[7]
for _ = 1, 10 do
  local page = redis.call('HSCAN', inflight, cursor, 'COUNT', most)
  cursor = page[1]
  for i = 1, #page[2], 2 do
    local tag = tonumber(page[2][i])
    if not found[tag] then tags[#tags + 1] = tag end
    found[tag] = page[2][i + 1]
  end
  if cursor == '0' or #tags >= most / 2 then break end
end

-- Newest first, so that the oldest ends up at the head.
table.sort(tags, function(a, b) return a > b end)
local entries, buried, named, bills = {}, {}, {}, 0
-- With which crash, or death of a worker, this job is buried. Entries are not decoded unless a task differs.
local function most_of(entry)
  local most = next(limits) and limits[job_of(entry).task] or usually
  return most > 0 and most or math.huge
end
local function name(entry, is_buried)
  local job, _, crashes, _, _, _, _, deaths = job_of(entry), parse(entry)
  if type(job.id) ~= 'string' or type(job.task) ~= 'string' then return end
  named[#named + 1] = {job.id, job.task, crashes, deaths, is_buried and 1 or 0}
end
local function note(entry, report, late)
  local how = (died == 'workers' and 'Crashed: its whole worker died: ' or 'Crashed: its consumer ') .. ARGV[5]
  local said = report and cjson.decode(report).error or how
  leave_notice(meta, entry, said, ARGV[6], report and 'on_bury' or late and '' or 'on_retry')
end
local only
for _, tag in ipairs(tags) do
  local entry = found[tag]
  released(inflight, entry)
  if blamed[tag] or ARGV[4] == 'all' then
    local report, late, alone
    entry, report, late, alone = crash(entry, meta, consumer, died, ARGV[5], ARGV[6], most_of(entry))
    bills, only = bills + 1, entry
    if noting then note(entry, report, late) end
    if #named < 10 and (report or alone) then name(entry, report or late) end
    if report then
      local n = #buried
      buried[n + 1], buried[n + 2], buried[n + 3] = tag, report, entry
      entry = nil
    end
  end
  if entry and entry:byte(1) ~= 123 then entry = yield(meta, entry, now) end
  if entry then entries[#entries + 1] = entry end
end
if bills == 1 and #named == 0 then name(only) end
for i = 1, #tags, 1000 do redis.call('HDEL', inflight, unpack(tags, i, math.min(i + 999, #tags))) end
local usual, length, lone = wait_again('RPUSH', entries, pending, suspects, meta)
to_dead(dead, index, meta, buried, tonumber(ARGV[8]), tonumber(ARGV[9]), now)
local left = redis.call('HLEN', inflight)
if #tags > 0 then
  redis.call('HINCRBY', meta, 'bytes', length)
  redis.call('HINCRBY', meta, 'inflight', -#tags)
  redis.call('HINCRBY', meta, 'reclaimed', #tags)
  ring_bell(bell, usual)
  ring_drained(pending, scheduled, meta, drained)
end
-- If the caller does not go on, another must be able to: the consumer stays listed, with a lease long over.
if left > 0 then redis.call('ZADD', consumers, 0, consumer) end
return {OK, #tags, left, cursor, lone, #buried / 3, named}
