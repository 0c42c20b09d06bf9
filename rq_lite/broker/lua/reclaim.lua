-- reclaim: return the jobs of a dead consumer to the head of the queue, a batch at a time; each is charged
--          an attempt and a crash. Once its jobs are gone the consumer is forgotten.
-- KEYS    1 inflight:<consumer>  2 pending  3 meta  4 consumers  5 bell
-- ARGV    1 consumer  2 jobs at most  3 certain (1: known to be dead; 0: only if its lease has ended)
-- returns {OK, reclaimed, left} | {ALIVE}
-- oom     allowed
-- callers Broker.reclaim
local inflight, pending, meta, consumers, bell = unpack(KEYS)
local consumer, most, certain = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local lease = redis.call('ZSCORE', consumers, consumer)
if lease and not certain and tonumber(lease) > now_ms() then return {ALIVE} end

-- It takes nothing more from here on, whatever of it may still be on its way.
redis.call('ZREM', consumers, consumer)
local tags, entries, cursor = {}, {}, '0'
repeat
  local page = redis.call('HSCAN', inflight, cursor, 'COUNT', most)
  cursor = page[1]
  for i = 1, #page[2], 2 do
    local tag = page[2][i]
    if not entries[tag] and #tags < most then
      tags[#tags + 1] = tag
      entries[tag] = page[2][i + 1]
    end
  end
until cursor == '0' or #tags >= most

-- Newest first, so that the oldest ends up at the head.
table.sort(tags, function(a, b) return tonumber(a) > tonumber(b) end)
local length = 0
for _, tag in ipairs(tags) do
  local entry = charged(entries[tag], 1, 1)
  redis.call('HDEL', inflight, tag)
  redis.call('RPUSH', pending, entry)
  length = length + #entry
end
local left = redis.call('HLEN', inflight)
if #tags > 0 then
  redis.call('HINCRBY', meta, 'bytes', length)
  redis.call('HINCRBY', meta, 'inflight', -#tags)
  redis.call('HINCRBY', meta, 'reclaimed', #tags)
  ring_bell(bell, #tags)
end
-- Somebody must be able to go on if this call was the caller's last: stay listed, with a lease long over.
if left > 0 then redis.call('ZADD', consumers, 0, consumer) end
return {OK, #tags, left}
