-- retry: let the first letter of a line run again, then those behind it. After letter.lua, which has keys, head and answers.
-- ARGV[4] the letter from now on
if first ~= position then return {ANSWER.BEHIND, first} end
if redis.call('HEXISTS', DUE, line) == 1 then return {ANSWER.DUE, first} end
redis.call('HSET', DEAD, position, ARGV[4])
redis.call('HSET', DUE, line, '')
redis.call('HSET', OUTBOX, head.event_id, ARGV[3])
return {ANSWER.OK, first}
