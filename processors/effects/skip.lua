-- skip: finish entries that need no handler. After step.lua, which has keys, head and answers.
-- ARGV[2..] their positions
-- returns {OK}
local finished = {}
for i = 2, #ARGV do
  if not is_finished(ARGV[i]) then finished[ARGV[i]] = true end
end
finish(finished, head.counter)
return {ANSWER.OK}
