-- progress: store how far a running job is, for status, and tell the processes that watch it. Or: it no longer runs.
-- KEYS    1 inflight:<consumer>  2 progress  3 job:<id>  4 meta
-- ARGV    1 id  2 delivery tag  3 its consumer, tag and task  4 how far it is ('': it no longer runs); 3 and 4 as JSON
--         without braces
-- returns {OK} | {STALE}
-- oom     refused
-- callers Broker.progress
local inflight, progress, job, meta = unpack(KEYS)
local id, tag, head, detail, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], now_ms()
if detail == '' then
  -- The progress of another run stays.
  local known = redis.call('HGET', progress, id)
  if not known or known:find(head, 1, true) == 2 then
    redis.call('HDEL', progress, id)
    redis.call('HDEL', job, 'progress')
  end
  return {OK}
end
if redis.call('HEXISTS', inflight, tag) == 0 then return {STALE} end
local at = ',"at":' .. string.format('%d', now) .. '}'
redis.call('HSET', job, 'progress', '{' .. detail .. at)
redis.call('PEXPIRE', job, KEPT)
if shown(progress, id, now) then
  redis.call('HSET', progress, id, '{' .. head .. ',' .. detail .. at)
  redis.call('PEXPIRE', progress, KEPT)
end
push_to_watchers(prefix_of(meta), job, id .. '\n{"state":"progress",' .. detail .. '}')
return {OK}
