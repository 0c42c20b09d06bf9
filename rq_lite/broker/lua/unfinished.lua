-- unfinished: how many jobs of a queue are not finished; a process that waits for 0 calls it around each wait.
-- KEYS    1 pending  2 scheduled  3 meta  4 drained
-- returns {OK, unfinished, of these parked}
-- oom     allowed
-- callers Broker.unfinished
local pending, scheduled, meta, drained = unpack(KEYS)
local left, parked = unfinished(pending, scheduled, meta), tonumber(redis.call('HGET', meta, 'parked') or 0)
-- A token left from an earlier time must not wake a process for nothing; one that woke the caller is passed on.
redis.call('DEL', drained)
if left <= 0 then ring(drained) end
return {OK, math.max(0, left), parked}
