-- declare: make a queue known with the bound and the order that the program names. The bound in Redis changes only when
--          the program names another number than last time: what an operator has set meanwhile is kept. The order
--          changes only while no job waits: the caller compares the order in force with the one that it named.
-- KEYS    1 meta  2 pending  3 scheduled
-- ARGV    1 maxsize ('': not named)  2 maxbytes ('': not named)  3 default maxsize  4 default maxbytes
--         5 order: fifo, lifo or priority ('': not named)  6 headroom, jobs ('': not named)
--         7 what a put does that finds no room: wait, raise, drop-new or drop-old ('': not named)
-- returns {OK, maxsize, maxbytes, order}
-- oom     refused, but a queue that is known as it is named needs no write: a worker can start
-- callers Broker.declare
local meta, pending, scheduled = unpack(KEYS)
local function bound(field, named, default)
  if named ~= '' and redis.call('HGET', meta, 'declared_' .. field) ~= named then
    redis.call('HSET', meta, 'declared_' .. field, named, field, named)
  elseif default and redis.call('HEXISTS', meta, field) == 0 then
    redis.call('HSET', meta, field, default)
  end
  return tonumber(redis.call('HGET', meta, field))
end
if ARGV[6] ~= '' then bound('headroom', ARGV[6]) end
if ARGV[7] ~= '' then bound('full', ARGV[7]) end
local order, named = redis.call('HGET', meta, 'order') or 'fifo', ARGV[5]
if named ~= '' and named ~= order then
  if waiting(pending, order) + redis.call('ZCARD', scheduled) > 0 then return {OK, 0, 0, order} end
  redis.call('HSET', meta, 'order', named)
  order = named
end
return {OK, bound('maxsize', ARGV[1], ARGV[3]), bound('maxbytes', ARGV[2], ARGV[4]), order}
