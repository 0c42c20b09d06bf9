-- window: some of the entries of a list or a sorted set, unchanged: as many as one answer may hold. If the first is
--         larger than that, a piece of it.
-- KEYS    1 pending
-- ARGV    1 index of the first  2 how many at most  3 bytes at most  4 where the piece begins (from 1)
-- returns {OK, length of the first (0: no entry), its digest if this is a piece of it, entry, score ('' in a list)…}
-- oom     allowed
-- callers Broker._window, Broker.head
local place, first, count, most, from = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ranked = redis.call('TYPE', place).ok == 'zset'
local reply, sent = {OK, 0, ''}, 0
for i = first, first + count - 1 do
  local one = ranked and redis.call('ZRANGE', place, i, i, 'WITHSCORES') or redis.call('LRANGE', place, -1 - i, -1 - i)
  local entry = one[1]
  if not entry then break end
  if i == first then reply[2] = #entry end
  sent = sent + #entry
  if sent > most then
    if i > first then break end
    reply[3], entry = redis.sha1hex(entry), entry:sub(from, from + most - 1)
  end
  reply[#reply + 1], reply[#reply + 2] = entry, one[2] or ''
end
return reply
