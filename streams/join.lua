-- join: from now on producers wait for a group that falls too far behind.
-- KEYS[1] groups  hash    group -> "events bytes ms": the partition's counts when it joined, and the server's
--                 time
-- KEYS[2] log     stream  the partition's events
-- KEYS[3] meta    hash    trimmed, bytes, clear (append.lua)
-- ARGV    [1] group
-- returns 1, or 0 where it had joined before: its place is kept.  raises WRONGTYPE before any write.  cost
--         O(1)
redis.call('HLEN', KEYS[1])
local meta = redis.call('HMGET', KEYS[3], 'trimmed', 'bytes')
local held, time = redis.call('XLEN', KEYS[2]) + (meta[1] or 0), redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HDEL', KEYS[3], 'clear')
return redis.call('HSETNX', KEYS[1], ARGV[1], string.format('%.0f %s %s', held, meta[2] or '0', now))
