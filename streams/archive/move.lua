-- move: let the slot name the place that the archive's files were copied to, or change nothing.
-- KEYS[1] archive  hash  head, url
-- ARGV[1] head of the chain that is there    ARGV[2] url of the place
-- returns OK, or STALE when the head is another: a segment was closed meanwhile, at the old place
-- raises  WRONGTYPE when the key has another type, before any write.  cost O(1)
local ANSWER = {STALE = 0, OK = 1} -- MoveAnswer
local SLOT, head, url = KEYS[1], ARGV[1], ARGV[2]

if (redis.call('HGET', SLOT, 'head') or '') ~= head then return ANSWER.STALE end
redis.call('HDEL', SLOT, '') -- removes nothing: a full server lets a script through that has begun to write
redis.call('HSET', SLOT, 'url', url)
return ANSWER.OK
