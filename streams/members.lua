-- members: who shares a group's partitions now.
-- KEYS[1] members  sorted set  host -> server ms until which it counts as alive
-- ARGV    [1] host  [2] ms until it is forgotten; 0: it leaves now
-- returns the living hosts, in byte order.  cost O(hosts)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) > 0 then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local living = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(living)
return living
