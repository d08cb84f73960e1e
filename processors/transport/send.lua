-- send: put messages into one partition's log, each chunk of a producer once.
-- KEYS[1] log        stream  the partition's entries                       all share one {partition} hash tag
-- KEYS[2] producers  hash    producer -> "sequence offset server-ms" of its last chunk
-- KEYS[3] meta       hash    appended
-- ARGV    [1] producer  [2] the chunk's sequence, one more than that of the producer's chunk before
--         [3] producers kept  [4] ms after which a silent one may be forgotten
--         [5..] per message: n, then its n fields and values; at most 500 messages
-- returns {0 SENT, number of entries before the chunk, server ms}
--         {1 REPEATED, the same as the first time}      nothing written
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(messages); O(producers) when one is new
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local row = redis.call('HGET', KEYS[2], ARGV[1])
local offset = redis.call('XLEN', KEYS[1]) + tonumber(redis.call('HGET', KEYS[3], 'trimmed') or 0)
if row then
  local sequence, first, at = string.match(row, '^(%d+) (%d+) (%d+)$')
  if sequence == ARGV[2] then return {1, tonumber(first), tonumber(at)} end
end

-- Whom to forget: the silent ones when there are too many, and if that is not enough, the longest silent.
local forgotten = {}
if not row and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then
  local rows, oldest, oldest_at = redis.call('HGETALL', KEYS[2]), nil, now + 1
  for i = 1, #rows, 2 do
    local at = tonumber(string.match(rows[i + 1], '(%d+)$') or 0)
    if at < now - ARGV[4] and #forgotten < 4000 then forgotten[#forgotten + 1] = rows[i] end
    if at < oldest_at then oldest, oldest_at = rows[i], at end
  end
  if #forgotten == 0 then forgotten[1] = oldest end
end

-- Commit. XADD comes first: should it fail (memory, exhausted IDs), nothing has been written yet.
local i, sent = 5, 0
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, i + 1, i + n))
  i, sent = i + n + 1, sent + 1
end
redis.call('HSET', KEYS[2], ARGV[1], string.format('%s %.0f %.0f', ARGV[2], offset, now))
if #forgotten > 0 then redis.call('HDEL', KEYS[2], unpack(forgotten)) end
redis.call('HINCRBY', KEYS[3], 'appended', sent)
return {0, offset, now}
