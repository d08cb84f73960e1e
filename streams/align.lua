-- align: make a consumer group where there is none, and put it where a cursor is
-- KEYS[1] log     stream
-- KEYS[2] cursor  hash    position, read: of the group's view or processor
-- ARGV[1] group
-- returns 1 made, 0 it was there
-- raises  WRONGTYPE; OOM where it is to be made. Nothing is written by then.  cost O(1)
-- parts   follow
local log, group = KEYS[1], ARGV[1]
local at = redis.call('HMGET', KEYS[2], 'position', 'read')
local position, read = at[1], tonumber(at[2] or 0)
if not position or position == '' then position = '0' end
if follow(log, group, position, read, log_facts(log)) then return 0 end
redis.call('XGROUP', 'CREATE', log, group, position, 'MKSTREAM')
follow(log, group, position, read, log_facts(log))
return 1
