-- retire: make a generation's cursor its tombstone: commit.lua refuses whoever still writes to it, for ever.
-- KEYS[1] cursor  hash  of the generation
-- ARGV    server ms, for people
-- returns 1, or 0 where it was one already.  cost O(cursor)
local cursor, at_ms = KEYS[1], ARGV[1]
if redis.call('HEXISTS', cursor, 'retired') == 1 then return 0 end
redis.call('HDEL', cursor, '') -- removes nothing: a full server lets a script through that has begun to write
redis.call('HSET', cursor, 'retired', at_ms)
for _, field in ipairs(redis.call('HKEYS', cursor)) do
  if field ~= 'retired' then redis.call('HDEL', cursor, field) end
end
return 1
