-- generations: change the record of a view's generations, if it is what the caller read.
-- KEYS[1] views  hash  "stream/projection" -> JSON of the record (generations.py)
-- ARGV    field, the record as it was read ('' for none), the record to be
-- returns 1, or 0 where the record is another one: read it again.  raises WRONGTYPE before any write.  cost O(record)
local views, field, before, after = KEYS[1], unpack(ARGV)
if (redis.call('HGET', views, field) or '') ~= before then return 0 end
redis.call('HDEL', views, '') -- removes nothing: a full server lets a script through that has begun to write
redis.call('HSET', views, field, after)
return 1
