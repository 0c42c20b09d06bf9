-- requeue: put buried jobs back at the end of their queue, without attempts, crashes and deaths of workers,
--          as many as its bound allows; the others stay dead. It stops early after a megabyte or two, so as not to hold up Redis.
--          Marks that cancel these jobs are removed: the operator wants them to run.
-- KEYS    1 dead  2 dead:index  3 pending  4 scheduled  5 meta  6 bell  7 room  8 cancelled
-- ARGV    1 woken (1: waited for room)  2… delivery tags, in the order in which they are to wait
-- returns {OK, seen, requeued, too large ever to fit, full (1: the next one has no room), size, maxsize, bytes,
--         maxbytes, expired, kept out by another job that holds their lock} | {UNDECLARED} | {NEWER}; the rest of those seen were not dead, those after them are as they were
-- oom     allowed
-- callers Broker.requeue
local dead, index, pending, scheduled, meta, bell, room, cancelled = unpack(KEYS)
local SLICE = 1000000
if newer(redis.call('HGET', meta, 'format')) then return {NEWER} end
local known = redis.call('HMGET', meta, 'maxsize', 'maxbytes', 'bytes', 'order')
local maxsize, maxbytes, bytes = tonumber(known[1]), tonumber(known[2] or 0), tonumber(known[3] or 0)
if not maxsize then return {UNDECLARED} end
local size = waiting(pending, known[4]) + redis.call('ZCARD', scheduled)
if size == 0 then bytes = 0 end
local marked = redis.call('EXISTS', cancelled) == 1

local entries, tags, again, unmarked, picked, length, read, large, seen, full = {}, {}, {}, {}, {}, 0, 0, 0, 0, 0
local expired, taken, locks, locked = 0, 0, {}, {}
for i = 2, #ARGV do
  if read > SLICE then break end
  local tag = ARGV[i]
  local kept = not picked[tag] and redis.call('HGET', dead, tag)
  if kept then
    local entry = kept:sub((kept:find('\n', 1, true) or #kept) + 1)
    local _, _, at = parse(entry)
    if at then
      entry = uncounted(entry)
      if entry:byte(1) ~= 123 then entry = '0.0' .. entry end
    end
    local _, _, _, id, _, _, _, mode, lock, expires = parse(entry)
    local holder = lock and (locks[lock] or lock_of(prefix_of(meta), lock))
    if maxbytes > 0 and #entry > maxbytes then
      large = large + 1
    elseif expires and expires <= now_ms() then
      expired = expired + 1
    elseif holder then
      taken = taken + 1
    elseif (maxsize > 0 and size + #entries >= maxsize) or (maxbytes > 0 and bytes + length + #entry > maxbytes) then
      full = 1
      break
    else
      entries[#entries + 1], tags[#tags + 1], length = entry, tag, length + #entry
      if lock then locks[lock], locked[#locked + 1] = id, {lock, mode .. '|' .. id} end
      local whose = marked and job_of(entry).id
      if type(whose) == 'string' then unmarked[#unmarked + 1] = whose end
      again[#again + 1] = tracked(entry)
    end
    picked[tag], read = true, read + #kept
  end
  seen = seen + 1
end

-- '' is no tag: on Redis 6.2 a script may write at maxmemory only after it has tried to remove something.
redis.call('HDEL', dead, '', unpack(tags))
for _, pair in ipairs(locked) do redis.call('SET', prefix_of(meta) .. 'unique:' .. pair[1], pair[2]) end
-- Clients that ask from now on wait for the next end of these jobs.
for _, id in ipairs(again) do redis.call('DEL', prefix_of(meta) .. 'result:' .. id) end
if #tags > 0 then
  redis.call('ZREM', index, unpack(tags))
  add(entries, pending, known[4], meta)
  bytes, size = bytes + length, size + #entries
  redis.call('HSET', meta, 'bytes', bytes)
  redis.call('HINCRBY', meta, 'requeued', #entries)
  if #unmarked > 0 then redis.call('ZREM', cancelled, unpack(unmarked)) end
  ring_bell(bell, #entries)
end
after_put(full == 1 and #ARGV - 1 - seen or 0, ARGV[1] == '1', size, maxsize, meta, room)
return {OK, seen, #entries, large, full, size, maxsize, bytes, maxbytes, expired, taken}
