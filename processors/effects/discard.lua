-- discard: drop a letter, which gets no effect. After letter.lua, which has keys, head and answers.
redis.call('HDEL', DEAD, position)
redis.call('ZREM', LINE, place_of(line, position))
redis.call('HDEL', ATTEMPTS, position)
redis.call('HDEL', BEGUN, position)
redis.call('HINCRBY', CURSOR, 'dead', -1)
redis.call('HINCRBY', CURSOR, 'discarded', 1)
redis.call('HSET', OUTBOX, head.event_id, ARGV[3])
local following = first_of(LINE, line)
if following == '' then
  redis.call('HDEL', DUE, line)
elseif first == position then
  redis.call('HSET', DUE, line, '') -- what waited behind it runs now
end
return {ANSWER.OK, following}
