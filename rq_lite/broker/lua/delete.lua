-- delete: forget a queue that nothing is in and no consumer serves. Keys that expire by themselves stay until then: a
--         producer that sends its last put again must find that it was done, and clients may still fetch results.
-- KEYS    1 pending  2 scheduled  3 meta  4 consumers  5 suspects  6 dead  7 dead:index  8 bell  9 room  10 drained
--         11 alarm  12 cancelled  13 progress  14 over  15 blocked  16 seen
-- returns {OK, deleted (1), waiting, scheduled, suspects, in flight, dead, consumers} | {NEWER}
-- oom     allowed
-- callers Broker.delete
local pending, scheduled, meta, consumers, suspects, dead, index, bell, room, drained, alarm, cancelled, progress, over, blocked, seen = unpack(KEYS)
local state = redis.call('HMGET', meta, 'format', 'order', 'inflight')
if newer(state[1]) then return {NEWER} end
local found = {
  waiting(pending, state[2]), redis.call('ZCARD', scheduled), redis.call('LLEN', suspects),
  math.max(0, tonumber(state[3] or 0)), redis.call('HLEN', dead), redis.call('ZCOUNT', consumers, now_ms(), '+inf'),
}
for _, count in ipairs(found) do
  if count > 0 then return {OK, 0, unpack(found)} end
end
-- Of the places of jobs no key is left: Redis removes an empty list, hash or sorted set.
redis.call('UNLINK', meta, consumers, index, bell, room, drained, alarm, cancelled, progress, over, blocked, seen)
return {OK, 1, unpack(found)}
