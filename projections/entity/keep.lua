-- keep: store the snapshot of an entity, unless a newer one is there. A snapshot is a cache: whoever drops it changes nothing.
-- KEYS[1] snapshots  hash    subject -> JSON: version, fingerprint, position, state        all share one {partition} hash tag
-- KEYS[2] versions   hash    subject -> number of its events
-- KEYS[3] entities   hash    subject|chunk -> packed positions of its events (streams/entities.py)
-- ARGV    [1] subject  [2] version  [3] fingerprint of the fold  [4] JSON  [5] row and [6] slot (from 0) of the last event folded
--         [7] its place: packed position, or its text  [8] bytes of a place in a row
-- returns 1, or 0 where nothing was written: a newer one is there, or this log has not these events (a fail-over)
-- raises  WRONGTYPE before any write.  cost O(1)
local held = redis.call('HGET', KEYS[1], ARGV[1])
if tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0) < tonumber(ARGV[2]) then return 0 end
local from = ARGV[6] * ARGV[8]
local place = string.sub(redis.call('HGET', KEYS[3], ARGV[5]) or '', from + 1, from + ARGV[8])
if place ~= ARGV[7] and redis.call('HGET', KEYS[3], ARGV[5] .. '|' .. ARGV[6]) ~= ARGV[7] then return 0 end
local version, fingerprint = string.match(held or '', '^{"version":(%d+),"fingerprint":"([^"]*)"')
if fingerprint == ARGV[3] and tonumber(version) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return 1
