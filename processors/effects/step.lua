-- step: the part that skip, begin, done and park begin with: one step of a processor's way through one partition.
-- KEYS[1] cursor    hash    position, read, read_bytes, applied, skipped, duplicates, dead, discarded, moved_ms, version    all share one {partition} tag
-- KEYS[2] log       stream  the partition's events
-- KEYS[3] lease     hash    epoch: who may go on (streams/lease.lua)
-- KEYS[4] attempts  hash    position -> how often its handler was begun
-- KEYS[5] done      hash    position -> '': finished, but behind an unfinished one
-- KEYS[6] dead      hash    position -> letter (JSON): parked, or waiting behind a parked one of its line
-- KEYS[7] line      zset    "line position", padded: the dead letters of every line in order
-- KEYS[8] due       hash    line -> '': its dead letters may run again
-- KEYS[9] outbox    hash    event_id -> JSON of an audit event that is still to be appended
-- KEYS[10] begun    hash    position -> tokens "host:epoch:number" of the attempts that were begun and have not ended
-- ARGV[1] head      msgpack map
--           epoch     of the caller's lease, nil to compare none
--           version   of the processor's record for the stream (meeting.py); nil to compare none, as what was begun may end
--           counter   skip: the count they go to
--           position, line   of the item
--           is_compared      whether its crc32 is to be that of ARGV[2]
--           is_letter        whether it is a dead letter that runs again, then ARGV[3] is the letter as it was read
--           attempts_max     begin: attempts allowed
--           kills_max        begin: of those that have not ended
--           token            begin: names the attempt, so that a repeat of the question counts none
-- returns {an ANSWER, ..}; nothing is written but with OK and WAITING
-- raises  WRONGTYPE before any write.  cost O(entries the cursor passes)
-- Always: read + HLEN done == applied + skipped + duplicates + dead + discarded, and dead == HLEN dead == ZCARD line.
local ANSWER = {
  OK = 0,         -- begin: the attempt's number; done: position of the line's next dead letter, or ''
  STALE = 1,      -- it was finished, or its letter changed, without the caller; position of the dead letter that may run, or ''
  FENCED = 2,     -- a newer owner holds the lease; its epoch
  EXHAUSTED = 3,  -- begin: no attempt is left; how many were begun
  WAITING = 4,    -- begin: a dead letter of its line is before it, so now it is one too
  GAP = 5,        -- the log does not hold this entry
  MOVED_ON = 6,   -- a person decided about the processor meanwhile (recall.lua): settle anew
}
local CURSOR, LOG, LEASE, ATTEMPTS, DONE, DEAD, LINE, DUE, OUTBOX, BEGUN = unpack(KEYS)
local head = cmsgpack.unpack(ARGV[1])
for _, key in ipairs({CURSOR, LEASE, ATTEMPTS, DONE, DEAD, DUE, OUTBOX, BEGUN}) do redis.call('HLEN', key) end
redis.call('ZCARD', LINE)
local epoch = tonumber(redis.call('HGET', LEASE, 'epoch') or 0)
if head.epoch and epoch > head.epoch then return {ANSWER.FENCED, epoch} end

local at = redis.call('HMGET', CURSOR, 'position', 'version')
if head.version and tonumber(at[2] or 1) ~= head.version then return {ANSWER.MOVED_ON} end
local cursor = at[1] or ''
local reached = cursor == '' and '' or padded(cursor)
local function is_finished(position)
  return padded(position) <= reached or redis.call('HEXISTS', DONE, position) == 1
end

-- How far the cursor may go, when these are finished too: where to, entries and bytes on the way, and which of the way were done before.
-- Those of `finished` that it passes are taken out of it.
local function way(finished)
  local at, read, bytes, passed, fetch, is_open = cursor, 0, 0, {}, 1, true
  while is_open do
    local entries = redis.call('XRANGE', LOG, at == '' and '-' or '(' .. at, '+', 'COUNT', fetch)
    for i = 1, #entries do
      local position = entries[i][1]
      is_open = finished[position] or redis.call('HEXISTS', DONE, position) == 1
      if not is_open then break end
      if not finished[position] then passed[#passed + 1] = position end
      at, read, bytes, finished[position] = position, read + 1, bytes + #(entries[i][2][2] or ''), nil
    end
    is_open, fetch = is_open and #entries == fetch, math.min(fetch * 2, 64)
  end
  return at, read, bytes, passed
end

-- The cursor passes what is finished without a gap; what is finished behind a gap is remembered. `finished`: a set of positions.
local function finish(finished, counter)
  local at, read, bytes, passed = way(finished)
  local count = read - #passed
  for position in pairs(finished) do
    redis.call('HSET', DONE, position, '')
    count = count + 1
  end
  for i = 1, #passed do redis.call('HDEL', DONE, passed[i]) end
  if read > 0 then
    local time = redis.call('TIME')
    redis.call('HSET', CURSOR, 'position', at, 'moved_ms', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
    redis.call('HINCRBY', CURSOR, 'read', read)
    redis.call('HINCRBY', CURSOR, 'read_bytes', bytes)
  end
  if count > 0 then redis.call('HINCRBY', CURSOR, counter, count) end
end
