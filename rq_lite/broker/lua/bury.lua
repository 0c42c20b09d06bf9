-- bury: move deliveries that are given up to the dead set, each with a report; the set is capped, drops are counted.
--       A tracked one comes here only if it could not, or must not, be read (others are finished): who waits for it is
--       told that it has failed, and why. Its callbacks are not put: nobody vouches for them.
-- KEYS    1 inflight:<consumer>  2 dead  3 dead:index  4 meta  5 pending  6 scheduled  7 drained
-- ARGV    1 most jobs to keep  2 longest to keep one, ms  3… pairs of delivery tag and report (JSON, one line)
-- returns {OK, buried, stale}
-- oom     allowed
-- callers Broker.bury
local inflight, dead, index, meta, pending, scheduled, drained = unpack(KEYS)
local now, buried, stale = now_ms(), {}, 0

-- For how long its result is to be kept stands in the job; where that cannot be read, for an hour.
local function end_unread(id, entry, report)
  local KINDS, HOUR = {refused = 'Refused', ['not a job'] = 'Undecodable'}, 3600000
  local known, said = pcall(cjson.decode, report)
  local why = known and type(said) == 'table' and type(said.error) == 'string' and said.error or 'not a job'
  local kind, text = why:match('^([^:]*): (.*)$')
  local ended = cjson.encode({type = KINDS[kind] or kind or why, message = text or '', traceback = ''})
  if next(job_of(entry)) then return end_entry(prefix_of(meta), entry, 'failed', '"error":' .. ended) end
  end_job(prefix_of(meta), id, 'failed', '"error":' .. ended, HOUR)
end

for i = 3, #ARGV, 2 do
  local entry = settled(inflight, ARGV[i])
  if entry then
    local n = #buried
    buried[n + 1], buried[n + 2], buried[n + 3] = ARGV[i], ARGV[i + 1], entry
    local id = tracked(entry)
    if id then end_unread(id, entry, ARGV[i + 1]) end
  else
    stale = stale + 1
  end
end
if #buried > 0 then
  to_dead(dead, index, meta, buried, tonumber(ARGV[1]), tonumber(ARGV[2]), now)
  redis.call('HINCRBY', meta, 'inflight', -#buried / 3)
  ring_drained(pending, scheduled, meta, drained)
end
if stale > 0 then redis.call('HINCRBY', meta, 'stale', stale) end
return {OK, #buried / 3, stale}
