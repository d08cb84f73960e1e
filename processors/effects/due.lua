-- due: letters that a decision made run now, each where it is the first of its line. After lines.lua.
-- KEYS[1] dead hash  [2] line zset  [3] due hash    as in step.lua, one {partition} tag
-- ARGV[1] msgpack list of [position, line, letter as it was read]
-- returns how many lines run.  raises  WRONGTYPE before any write.  cost O(letters)
local DEAD, LINE, DUE = unpack(KEYS)
redis.call('HLEN', DUE)
local runs = 0
for _, item in ipairs(cmsgpack.unpack(ARGV[1])) do
  local position, line, letter = unpack(item)
  if first_of(LINE, line) == position and redis.call('HGET', DEAD, position) == letter then
    redis.call('HSET', DUE, line, '')
    runs = runs + 1
  end
end
return runs
