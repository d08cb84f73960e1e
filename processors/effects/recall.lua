-- recall: entries that were skipped become dead letters, which run again once the decision is whole; then the record's version counts.
-- After lines.lua. KEYS[1] cursor hash  [2] done hash  [3] dead hash  [4] line zset  [5] due hash    as in step.lua, one {partition} tag
-- ARGV[1] head   msgpack map
--         version  of the record from now on
--         from     cursor field "recalled" the caller goes on from, '' at the start
--         until    position up to which the log was looked through with this call
--         is_last  whether that was all
-- ARGV[2] letters  msgpack list of [position, line, letter]
-- returns {OK, entries recalled}, {AGAIN, position up to which it was looked through}: another run was there, or there is more by now
--         {WHOLE, 0}  this partition has the version already
-- While it goes on, the owner of the lane may finish further entries: the last call is refused unless all that is finished was seen.
-- raises  WRONGTYPE before any write.  cost O(letters + done)
local ANSWER = {OK = 0, AGAIN = 1, WHOLE = 2}
local CURSOR, DONE, DEAD, LINE, DUE = unpack(KEYS)
local head, letters = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
for _, key in ipairs({DONE, DEAD, DUE}) do redis.call('HLEN', key) end
redis.call('ZCARD', LINE)
local marks = redis.call('HMGET', CURSOR, 'position', 'version', 'recalled')
if tonumber(marks[2] or 1) >= head.version then return {ANSWER.WHOLE, 0} end
if (marks[3] or '') ~= head.from then return {ANSWER.AGAIN, marks[3] or ''} end

local reached = marks[1] and padded(marks[1]) or ''
local recalled, lines = 0, {}
for _, item in ipairs(letters) do
  local position, line, letter = unpack(item)
  local is_finished = padded(position) <= reached or redis.call('HEXISTS', DONE, position) == 1
  if is_finished and redis.call('HEXISTS', DEAD, position) == 0 then
    redis.call('HSET', DEAD, position, letter)
    redis.call('ZADD', LINE, 0, place_of(line, position))
    recalled = recalled + 1
  end
end
if recalled > 0 then
  redis.call('HINCRBY', CURSOR, 'skipped', -recalled)
  redis.call('HINCRBY', CURSOR, 'dead', recalled)
end
local seen = head['until'] == '' and '' or padded(head['until'])
local is_all = reached <= seen
for _, position in ipairs(redis.call('HKEYS', DONE)) do is_all = is_all and padded(position) <= seen end
if not (head.is_last and is_all) then
  if head['until'] ~= '' then redis.call('HSET', CURSOR, 'recalled', head['until']) end
  return {head.is_last and ANSWER.AGAIN or ANSWER.OK, head.is_last and head['until'] or recalled}
end
redis.call('HDEL', CURSOR, 'recalled')
redis.call('HSET', CURSOR, 'version', head.version)
return {ANSWER.OK, recalled}
