-- archive: let the slot say that one more segment of its partition is archived, or change nothing.
-- KEYS[1] archive  hash    number, position, entries, head, url            both share one {partition} hash tag
-- KEYS[2] log      stream  the partition's events
-- ARGV [1] head before, '' at the start  [2] number, [3] position, [4] entries, [5] head, [6] url: what the slot is to say
--      [7] position of the segment's first entry  [8] last value of its last entry, its checksum
-- returns {0 OK}                     also where it says so already: a repeat after a lost answer
--         {1 STALE, number, head}    another archiver has moved it
--         {2 GAP}                    the log does not hold the segment's first and last entry: it is not the log that was read
--         {3 ELSEWHERE, url}         the segments before are at another place
-- raises  WRONGTYPE when a key has another type, before any write.  cost O(1)
redis.call('XLEN', KEYS[2])
local at = redis.call('HMGET', KEYS[1], 'number', 'head', 'url')
if at[2] == ARGV[5] then return {0} end
if (at[2] or '') ~= ARGV[1] then return {1, at[1] or '0', at[2] or ''} end
if at[3] and at[3] ~= ARGV[6] then return {3, at[3]} end
local first = redis.call('XRANGE', KEYS[2], ARGV[7], ARGV[7])[1]
local last = redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3])[1]
if not first or not last or (last[2][#last[2]] or '') ~= ARGV[8] then return {2} end
redis.call('HSET', KEYS[1], 'number', ARGV[2], 'position', ARGV[3], 'entries', ARGV[4], 'head', ARGV[5], 'url', ARGV[6])
return {0}
