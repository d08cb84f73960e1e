-- send: put messages into one partition's log, each chunk of a producer once.
-- KEYS[1] log        stream  the partition's entries                       all share one {partition} hash tag
-- KEYS[2] producers  hash    producer -> "sequence offset server-ms" of its last chunk
-- KEYS[3] meta       hash    appended, trimmed
-- ARGV[1] head       msgpack map
--           producer
--           sequence       of the chunk, one more than that of the producer's chunk before
--           producers_max  kept
--           forget_ms      after which a silent one may be forgotten
-- ARGV[2..] per message: n, then its n fields and values; at most 500 messages
-- returns {an ANSWER, number of entries before the chunk, server ms}
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(messages); O(producers) when one is new
local ANSWER = {
  SENT = 0,
  REPEATED = 1,  -- the same as the first time; nothing written
}
local FORGOTTEN_MAX = 4000 -- at once: what unpack takes
local LOG, PRODUCERS, META = unpack(KEYS)
local head = cmsgpack.unpack(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local row = redis.call('HGET', PRODUCERS, head.producer)
local offset = redis.call('XLEN', LOG) + tonumber(redis.call('HGET', META, 'trimmed') or 0)
if row then
  local sequence, first, at = string.match(row, '^(%d+) (%d+) (%d+)$')
  if tonumber(sequence) == head.sequence then return {ANSWER.REPEATED, tonumber(first), tonumber(at)} end
end

-- Whom to forget: the silent ones when there are too many, and if that is not enough, the longest silent.
local function silent_ones()
  local rows, oldest, oldest_at, silent = redis.call('HGETALL', PRODUCERS), nil, now + 1, {}
  for i = 1, #rows, 2 do
    local at = tonumber(string.match(rows[i + 1], '(%d+)$') or 0)
    if at < now - head.forget_ms and #silent < FORGOTTEN_MAX then silent[#silent + 1] = rows[i] end
    if at < oldest_at then oldest, oldest_at = rows[i], at end
  end
  return #silent > 0 and silent or {oldest}
end
local is_full = not row and redis.call('HLEN', PRODUCERS) >= head.producers_max
local forgotten = is_full and silent_ones() or {}

-- Commit. XADD comes first: should it fail (memory, exhausted IDs), nothing has been written yet.
local i, sent = 2, 0
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call('XADD', LOG, '*', unpack(ARGV, i + 1, i + n))
  i, sent = i + n + 1, sent + 1
end
redis.call('HSET', PRODUCERS, head.producer, string.format('%.0f %.0f %.0f', head.sequence, offset, now))
if #forgotten > 0 then redis.call('HDEL', PRODUCERS, unpack(forgotten)) end
redis.call('HINCRBY', META, 'appended', sent)
return {ANSWER.SENT, offset, now}
