-- begin: a processor that is new to a partition begins where its log does, as if it had skipped what was trimmed.
-- KEYS[1] cursor  hash  position, read, read_bytes, skipped (step.lua)                both share one {partition} hash tag
-- KEYS[2] meta    hash  trimmed, trimmed_bytes, trimmed_to (streams/retention/trim.lua)
-- returns the cursor as HGETALL: counts that did not include what was trimmed would call it behind for ever.
-- raises  WRONGTYPE before any write.  cost O(1)
local meta = redis.call('HMGET', KEYS[2], 'trimmed', 'trimmed_bytes', 'trimmed_to')
if redis.call('HLEN', KEYS[1]) == 0 and meta[1] then
  redis.call('HSET', KEYS[1], 'position', meta[3], 'read', meta[1], 'skipped', meta[1], 'read_bytes', meta[2] or 0)
end
return redis.call('HGETALL', KEYS[1])
