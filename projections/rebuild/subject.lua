-- subject: put the rows of one key of a partition's view right, if the view is where they were folded to.
-- KEYS[1] cursor  hash    position, repairs, retired; "fact ID": an event until it is in the audit trail
--                                           all share one {partition} hash tag
-- KEYS[2..] tables of the view: hashes and sorted sets
-- ARGV[1] head    msgpack map
--           position  the rows were folded to, '' at the start
--           event_id, fact  ID and JSON of the audit event, noted with the rows
--           types     of KEYS[2..], 'hash' or 'zset' each
--           writes    {key, command, first, last} each: key into KEYS, first and last into ARGV; command HSET, HDEL, ZADD, ZREM
-- ARGV[2..] operands of the writes: absolute values
-- returns {ANSWER}, and behind STALE the stored position, behind BROKEN the key and its type
-- Whoever keeps states of this view in memory is refused once (repairs in commit.lua) and reads them anew.
-- Nothing is written unless OK.  cost O(operands)
local ANSWER = {
  OK = 0,
  STALE = 1,    -- the view has moved on: fold on and call again
  BROKEN = 2,   -- a key has a type it never gets from us
  RETIRED = 3,  -- another generation is live by now
}
local CHUNK = 4000 -- unpack fails at about 8,000
local head = cmsgpack.unpack(ARGV[1])

for i, key in ipairs(KEYS) do
  local type, wanted = redis.call('TYPE', key).ok, i == 1 and 'hash' or head.types[i - 1]
  if type ~= 'none' and type ~= wanted then return {ANSWER.BROKEN, key, type} end
end
local cursor = redis.call('HMGET', KEYS[1], 'position', 'retired')
if cursor[2] then return {ANSWER.RETIRED} end
if (cursor[1] or '') ~= head.position then return {ANSWER.STALE, cursor[1] or ''} end

-- As commit.lua performs its operations: six lines, and each of the two scripts can be read alone.
for _, write in ipairs(head.writes) do
  local key, command, first, last = unpack(write)
  for i = first, last, CHUNK do
    redis.call(command, KEYS[key], unpack(ARGV, i, math.min(i + CHUNK - 1, last)))
  end
end
redis.call('HINCRBY', KEYS[1], 'repairs', 1)
redis.call('HSET', KEYS[1], 'fact ' .. head.event_id, head.fact)
return {ANSWER.OK}
