-- watch: have a process told how jobs end; results of those that have ended are returned at once. The others are
--        pushed to its inbox when they end; it asks again from time to time, in case a push was lost.
-- KEYS    1 meta
-- ARGV    1 process  2 how long it is told unless it asks again, ms  3 bytes of results at most  4… ids
-- returns {OK, for each id: '' (has not ended), '+' (has, but its result does not fit here: get it), or its result}
-- oom     allowed
-- callers Broker.watch
local meta = KEYS[1]
local prefix, field, lifetime, results, sent = prefix_of(meta), 'watch:' .. ARGV[1], tonumber(ARGV[2]), {}, 0
local most = tonumber(ARGV[3])
-- '' is no field: on Redis 6.2 a script may write at maxmemory only after it has tried to remove something.
redis.call('HDEL', meta, '')
for i = 4, #ARGV do
  local result = redis.call('GET', prefix .. 'result:' .. ARGV[i])
  if not result then
    local job = prefix .. 'job:' .. ARGV[i]
    redis.call('HSET', job, field, 1)
    if redis.call('PTTL', job) < lifetime then redis.call('PEXPIRE', job, lifetime) end
    results[i - 3] = ''
  elseif sent + #result > most then
    results[i - 3] = '+'
  else
    sent = sent + #result
    results[i - 3] = result
  end
end
return {OK, results}
