-- instant: several reads of one partition at one instant, on a server that is full as well.
-- KEYS    all that the commands name                             all share one {partition} hash tag
-- ARGV[1] commands, a msgpack list of lists: name, argument, ..
-- returns one answer each; an error is an answer.  writes nothing.  cost as the commands
local answers = {}
for i, command in ipairs(cmsgpack.unpack(ARGV[1])) do answers[i] = redis.pcall(unpack(command)) end
return answers
