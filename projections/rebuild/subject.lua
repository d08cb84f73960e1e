-- subject: put the rows of one key of a partition's view right, if the view is where they were folded to.
-- KEYS[1] cursor  hash    position, repairs, retired                            all share one {partition} hash tag
-- KEYS[2..] tables of the view: hashes and sorted sets
-- ARGV    [1] position  [2] types of KEYS[2..], 'h' or 'z' each
--         [3] operations, lines "key command first last\n", as in commit.lua: absolute values
-- returns {0 OK}, {1 STALE, position} the view has moved on: fold on and call again, {4 BROKEN, key, type}, {8 RETIRED}
-- Whoever keeps states of this view in memory is refused once (repairs in commit.lua) and reads them anew.
-- Nothing is written unless OK.  cost O(operands)
for i = 1, #KEYS do
  local found = redis.call('TYPE', KEYS[i]).ok
  local kind = (i > 1 and string.sub(ARGV[2], i - 1, i - 1) == 'z') and 'zset' or 'hash'
  if found ~= 'none' and found ~= kind then return {4, KEYS[i], found} end
end
local at = redis.call('HMGET', KEYS[1], 'position', 'retired')
if at[2] then return {8} end
if (at[1] or '') ~= ARGV[1] then return {1, at[1] or ''} end

for key, command, first, last in string.gmatch(ARGV[3], '(%d+) (%a+) (%d+) (%d+)\n') do
  for i = first, last, 4000 do
    redis.call(command, KEYS[tonumber(key)], unpack(ARGV, i, math.min(i + 3999, last)))
  end
end
redis.call('HINCRBY', KEYS[1], 'repairs', 1)
return {0}
