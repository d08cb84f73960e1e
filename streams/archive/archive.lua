-- archive: let the slot say that one more segment of its partition is archived, or change nothing.
-- KEYS[1] archive  hash    number, position, entries, head, url            both share one {partition} hash tag
-- KEYS[2] log      stream  the partition's events
-- ARGV[1] segment, a msgpack map
--         previous   head the slot has before, '' at the start
--         number, position, entries, head, url    what the slot is to say; position is the segment's last entry's
--         first      position of the segment's first entry
-- ARGV[2] checksum: last value of its last entry, any bytes (which cmsgpack does not read)
-- returns {OK}                     also where it says so already: a repeat after a lost answer
--         {STALE, number, head}    another archiver has moved it
--         {GAP}                    the log does not hold the segment's first and last entry: it is not the log that was read
--         {ELSEWHERE, url}         the segments before are at another place
-- raises  WRONGTYPE when a key has another type, before any write.  cost O(1)
local ANSWER = {OK = 0, STALE = 1, GAP = 2, ELSEWHERE = 3} -- ArchiveAnswer
local SLOT, LOG = KEYS[1], KEYS[2]
local segment, checksum = cmsgpack.unpack(ARGV[1]), ARGV[2]

redis.call('XLEN', LOG)
local slot = redis.call('HMGET', SLOT, 'number', 'head', 'url')
local number, head, url = slot[1] or '0', slot[2] or '', slot[3]
if head == segment.head then return {ANSWER.OK} end
if head ~= segment.previous then return {ANSWER.STALE, number, head} end
if url and url ~= segment.url then return {ANSWER.ELSEWHERE, url} end
local first = redis.call('XRANGE', LOG, segment.first, segment.first)[1]
local last = redis.call('XRANGE', LOG, segment.position, segment.position)[1]
if not first or not last or (last[2][#last[2]] or '') ~= checksum then return {ANSWER.GAP} end

redis.call('HDEL', SLOT, '') -- removes nothing: a full server lets a script through that has begun to write
redis.call('HSET', SLOT, 'number', segment.number, 'position', segment.position, 'entries', segment.entries,
  'head', segment.head, 'url', segment.url)
return {ANSWER.OK}
