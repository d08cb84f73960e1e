-- erase: drop a creator's name and key for good, and note the fact until it is in the log.
-- KEYS[1] names     hash  creator -> pseudonym                    the three share the hash tag {creators}
-- KEYS[2] keys      hash  pseudonym -> key; '' once it is erased
-- KEYS[3] erasures  hash  pseudonym -> JSON of the erasure's event
-- ARGV[1] creator    ARGV[2] its pseudonym as read    ARGV[3] JSON of the event
-- returns OK, or CHANGED: the creator has another pseudonym, or none; nothing written
-- raises  WRONGTYPE when a key has another type, before any write.  cost O(1)
local ANSWER = {CHANGED = 0, OK = 1} -- EraseAnswer
local NAMES, PSEUDONYMS, ERASURES = unpack(KEYS)
local creator, pseudonym, event = unpack(ARGV)

redis.call('HLEN', PSEUDONYMS)
redis.call('HLEN', ERASURES)
if redis.call('HGET', NAMES, creator) ~= pseudonym then return ANSWER.CHANGED end
redis.call('HDEL', ERASURES, '') -- removes nothing: a full server lets a script through that has begun to write
redis.call('HSET', ERASURES, pseudonym, event)
redis.call('HSET', PSEUDONYMS, pseudonym, '')
redis.call('HDEL', NAMES, creator)
return ANSWER.OK
