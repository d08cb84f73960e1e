-- attempt: count one, before anything happens outside. After step.lua and item.lua, which have keys, head and answers.
-- ARGV[4] the letter it becomes where it must wait
-- returns {OK, number of the attempt}, {WAITING}, {EXHAUSTED, attempts}, or what step.lua and item.lua say
if not head.is_letter and first ~= '' and padded(first) < padded(position) then
  keep(ARGV[4])
  finish({[position] = true}, 'dead')
  return {ANSWER.WAITING}
end
local attempts = tonumber(redis.call('HGET', ATTEMPTS, position) or 0)
local begun, open = redis.call('HGET', BEGUN, position) or '', 0
for token in string.gmatch(begun, '%S+') do
  if token == head.token then return {ANSWER.OK, attempts} end
  open = open + 1
end
if attempts >= head.attempts_max or open >= head.kills_max then return {ANSWER.EXHAUSTED, attempts} end
redis.call('HSET', BEGUN, position, begun == '' and head.token or begun .. ' ' .. head.token)
return {ANSWER.OK, redis.call('HINCRBY', ATTEMPTS, position, 1)}
