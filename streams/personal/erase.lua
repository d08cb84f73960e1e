-- erase: drop a creator's name and key for good, and note the fact until it is in the log.
-- KEYS[1] names     hash  creator -> pseudonym                    the three share the hash tag {creators}
-- KEYS[2] keys      hash  pseudonym -> key; '' once it is erased
-- KEYS[3] erasures  hash  pseudonym -> JSON of the erasure's event
-- ARGV    [1] creator  [2] its pseudonym as read  [3] JSON of the event
-- returns 1 OK, 0 CHANGED (the creator has another pseudonym, or none; nothing written)
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(1)
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[2], '')
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
