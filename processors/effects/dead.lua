-- dead: what a person decides about a dead letter, with its audit event, or nothing.
-- KEYS[1] cursor  [2] attempts  [3] dead  [4] line  [5] due  [6] outbox          as in effects.lua; one {partition} tag
-- ARGV    [1] verb, retry or discard  [2] position  [3] its line  [4] its letter as read  [5] retry: the letter from now on
--         [6] event_id and [7] JSON of the audit event
-- returns {0 OK, position of the line's first letter, or ''}
--         {1 CHANGED}            the letter is not what was read; nothing written
--         {2 BEHIND, position}   retry: that letter is before it in its line; nothing written
--         {3 DUE}                retry: its line runs already; nothing written
-- raises  WRONGTYPE before any write.  cost O(log letters)
local function padded(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local function head()
  local first = redis.call('ZRANGEBYLEX', KEYS[4], '[' .. ARGV[3] .. ' ', '(' .. ARGV[3] .. '!', 'LIMIT', 0, 1)[1]
  if not first then return '' end
  local ms, seq = string.match(first, ' 0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. seq
end

for _, key in ipairs({1, 2, 3, 5, 6}) do redis.call('HLEN', KEYS[key]) end
redis.call('ZCARD', KEYS[4])
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[4] then return {1} end
local first = head()
if ARGV[1] == 'retry' then
  if first ~= ARGV[2] then return {2, first} end
  if redis.call('HEXISTS', KEYS[5], ARGV[3]) == 1 then return {3} end
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[5])
  redis.call('HSET', KEYS[5], ARGV[3], '')
  redis.call('HSET', KEYS[6], ARGV[6], ARGV[7])
  return {0, first}
end

redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[3] .. ' ' .. padded(ARGV[2]))
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'dead', -1)
redis.call('HINCRBY', KEYS[1], 'discarded', 1)
redis.call('HSET', KEYS[6], ARGV[6], ARGV[7])
local following = head()
if following == '' then
  redis.call('HDEL', KEYS[5], ARGV[3])
elseif first == ARGV[2] then
  redis.call('HSET', KEYS[5], ARGV[3], '') -- what waited behind it runs now
end
return {0, following}
