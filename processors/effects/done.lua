-- done: the handler returned, and what it derived is in the log. After step.lua and item.lua, which have keys, head and answers.
-- returns {OK, position of the line's next dead letter, or ''}, or what step.lua and item.lua say
-- The first write is one that is not refused when memory is short, for it frees some.
redis.call('HDEL', ATTEMPTS, position)
redis.call('HDEL', BEGUN, position)
if not head.is_letter then
  finish({[position] = true}, 'applied')
  return {ANSWER.OK, ''}
end
redis.call('HDEL', DEAD, position)
redis.call('ZREM', LINE, place_of(line, position))
redis.call('HINCRBY', CURSOR, 'dead', -1)
redis.call('HINCRBY', CURSOR, 'applied', 1)
local following = first_of(LINE, line)
if following == '' then redis.call('HDEL', DUE, line) end
return {ANSWER.OK, following}
