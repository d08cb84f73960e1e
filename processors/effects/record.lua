-- record: put a record of a processor in the place of the one that was read, or change nothing.
-- KEYS[1] hash aura:processors    ARGV[1] field  [2] the record as it was read  [3] the next
-- returns 1, or 0 where it is another by now.  raises  WRONGTYPE before any write.  cost O(1)
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
