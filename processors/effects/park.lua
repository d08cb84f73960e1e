-- park: make the item a dead letter, and say so. After step.lua and item.lua, which have keys, head and answers.
-- ARGV[4] the letter  [5] event_id and [6] JSON of the audit event
-- returns {OK, ''}, or what step.lua and item.lua say
-- The first write is one that is refused when memory is short.
keep(ARGV[4])
redis.call('HDEL', ATTEMPTS, position)
redis.call('HDEL', BEGUN, position)
redis.call('HSET', OUTBOX, ARGV[5], ARGV[6])
if head.is_letter then redis.call('HDEL', DUE, line) else finish({[position] = true}, 'dead') end
return {ANSWER.OK, ''}
