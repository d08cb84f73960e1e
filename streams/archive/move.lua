-- move: let the slot name the place that the archive's files were copied to, or change nothing.
-- KEYS[1] archive hash  head, url    ARGV [1] head of the chain that was found there  [2] url
-- returns 1 when it does, 0 when the head is another: a segment was closed meanwhile, at the old place
-- raises  WRONGTYPE when the key has another type, before any write.  cost O(1)
if (redis.call('HGET', KEYS[1], 'head') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'url', ARGV[2])
return 1
