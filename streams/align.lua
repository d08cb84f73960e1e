-- align: make a consumer group where there is none, and put it where a cursor is
-- KEYS[1] log     stream
-- ARGV[1] group  [2] position of the last entry read, '0' before the first  [3] how many entries the cursor has read
-- returns 1 made, 0 it was there
-- raises  WRONGTYPE; OOM where it is to be made. Nothing is written by then.  cost O(1)
-- parts   follow
local log, group, position, read = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
if follow(log, group, position, read, log_facts(log)) then return 0 end
redis.call('XGROUP', 'CREATE', log, group, position, 'MKSTREAM')
follow(log, group, position, read, log_facts(log))
return 1
