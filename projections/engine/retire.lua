-- retire: make a generation's cursor its tombstone: commit.lua refuses whoever still writes to it, for ever.
-- KEYS[1] cursor  hash  of the generation
-- ARGV    [1] server ms, for people
-- returns 1, or 0 where it was one already.  cost O(cursor)
if redis.call('HEXISTS', KEYS[1], 'retired') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'retired', ARGV[1])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field ~= 'retired' then redis.call('HDEL', KEYS[1], field) end
end
return 1
