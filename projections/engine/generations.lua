-- generations: change the record of a view's generations, if it is what the caller read.
-- KEYS[1] views  hash  "stream/projection" -> JSON of the record (generations.py)
-- ARGV    [1] field  [2] the record as it was read, '' for none  [3] the record to be
-- returns 1, or 0 where the record is another one: read it again.  raises WRONGTYPE before any write.  cost O(record)
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
