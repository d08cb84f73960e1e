-- effects: one step of a processor's way through one partition; an attempt is counted before anything happens outside.
-- KEYS[1] cursor    hash    position, read, read_bytes, applied, skipped, duplicates, dead, discarded    all share one {partition} tag
-- KEYS[2] log       stream  the partition's events
-- KEYS[3] lease     hash    epoch: who may go on (streams/lease.lua)
-- KEYS[4] attempts  hash    position -> how often its handler was begun
-- KEYS[5] done      hash    position -> '': finished, but behind an unfinished one
-- KEYS[6] dead      hash    position -> letter (JSON): parked, or waiting behind a parked one of its line
-- KEYS[7] line      zset    "line position", padded: the dead letters of every line in order
-- KEYS[8] due       hash    line -> '': its dead letters may run again
-- KEYS[9] outbox    hash    event_id -> JSON of an audit event that is still to be appended
-- ARGV    [1] epoch of the caller's lease, '' to compare none  [2] verb
--   skip  [3] the count they go to  [4..] positions that need no handler
--   begin [3] position  [4] its line  [5] its crc32, '' not to compare  [6] its letter as read, '' for an event that has none
--         [7] attempts allowed  [8] letter for the case that it must wait
--   done  [3..6] as begin: the handler returned, and what it derived is in the log
--   park  [3..6] as begin  [7] the letter  [8] event_id and [9] JSON of the audit event
-- returns {0 OK, ..}     begin: number of the attempt; done: position of the line's next dead letter, or ''
--         {1 STALE, ..}  it was finished, or its letter changed, without the caller; done: as with OK
--         {2 FENCED, epoch}         a newer owner holds the lease
--         {3 EXHAUSTED, attempts}   begin: none is left
--         {4 WAITING}    begin: a dead letter of its line is before it, so now it is one too
--         {5 GAP}        the log does not hold this entry
-- Nothing is written but with OK and WAITING. raises WRONGTYPE before any write.  cost O(entries the cursor passes)
-- Always: read + HLEN done == applied + skipped + duplicates + dead + discarded, and dead == HLEN dead == ZCARD line.
local function padded(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local function head(line)
  local first = redis.call('ZRANGEBYLEX', KEYS[7], '[' .. line .. ' ', '(' .. line .. '!', 'LIMIT', 0, 1)[1]
  if not first then return '' end
  local ms, seq = string.match(first, ' 0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. seq
end
local function value_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

for _, key in ipairs({1, 3, 4, 5, 6, 8, 9}) do redis.call('HLEN', KEYS[key]) end
redis.call('ZCARD', KEYS[7])
local epoch = tonumber(redis.call('HGET', KEYS[3], 'epoch') or 0)
if ARGV[1] ~= '' and epoch > tonumber(ARGV[1]) then return {2, epoch} end
local cursor = redis.call('HGET', KEYS[1], 'position') or ''
local reached = cursor == '' and '' or padded(cursor)
local function is_finished(position)
  return padded(position) <= reached or redis.call('HEXISTS', KEYS[5], position) == 1
end

-- The cursor passes what is finished without a gap; what is finished behind a gap is remembered. `finished`: a set of positions.
local function finish(finished, counter)
  local at, read, bytes, passed, fetch, is_open = cursor, 0, 0, {}, 1, true
  while is_open do
    local entries = redis.call('XRANGE', KEYS[2], at == '' and '-' or '(' .. at, '+', 'COUNT', fetch)
    for i = 1, #entries do
      local position = entries[i][1]
      is_open = finished[position] or redis.call('HEXISTS', KEYS[5], position) == 1
      if not is_open then break end
      if not finished[position] then passed[#passed + 1] = position end
      at, read, bytes, finished[position] = position, read + 1, bytes + #(entries[i][2][2] or ''), nil
    end
    is_open, fetch = is_open and #entries == fetch, math.min(fetch * 2, 64)
  end
  local count = read - #passed
  for position in pairs(finished) do
    redis.call('HSET', KEYS[5], position, '')
    count = count + 1
  end
  for i = 1, #passed do redis.call('HDEL', KEYS[5], passed[i]) end
  if read > 0 then
    redis.call('HSET', KEYS[1], 'position', at)
    redis.call('HINCRBY', KEYS[1], 'read', read)
    redis.call('HINCRBY', KEYS[1], 'read_bytes', bytes)
  end
  if count > 0 then redis.call('HINCRBY', KEYS[1], counter, count) end
end

if ARGV[2] == 'skip' then
  local finished = {}
  for i = 4, #ARGV do
    if not is_finished(ARGV[i]) then finished[ARGV[i]] = true end
  end
  finish(finished, ARGV[3])
  return {0}
end

local position, line, letter = ARGV[3], ARGV[4], ARGV[6]
local entry = redis.call('XRANGE', KEYS[2], position, position)[1]
if not entry or (ARGV[5] ~= '' and value_of(entry[2], 'crc32') ~= ARGV[5]) then return {5} end
local is_letter, first = letter ~= '', head(line)
local is_stale = not is_letter and is_finished(position)
if is_letter then
  local is_due = redis.call('HEXISTS', KEYS[8], line) == 1 and first == position
  is_stale = not is_due or redis.call('HGET', KEYS[6], position) ~= letter
end
if is_stale then return {1, redis.call('HEXISTS', KEYS[8], line) == 1 and first or ''} end

local function keep(text)
  redis.call('HSET', KEYS[6], position, text)
  redis.call('ZADD', KEYS[7], 0, line .. ' ' .. padded(position))
end
if ARGV[2] == 'begin' then
  if not is_letter and first ~= '' and padded(first) < padded(position) then
    keep(ARGV[8])
    finish({[position] = true}, 'dead')
    return {4}
  end
  local attempts = tonumber(redis.call('HGET', KEYS[4], position) or 0)
  if attempts >= tonumber(ARGV[7]) then return {3, attempts} end
  return {0, redis.call('HINCRBY', KEYS[4], position, 1)}
end

-- Parking begins with a write that is refused when memory is short; finishing with one that is not, for it frees some.
if ARGV[2] == 'park' then
  keep(ARGV[7])
  redis.call('HDEL', KEYS[4], position)
  redis.call('HSET', KEYS[9], ARGV[8], ARGV[9])
  if is_letter then redis.call('HDEL', KEYS[8], line) else finish({[position] = true}, 'dead') end
  return {0, ''}
end
redis.call('HDEL', KEYS[4], position)
if not is_letter then
  finish({[position] = true}, 'applied')
  return {0, ''}
end
redis.call('HDEL', KEYS[6], position)
redis.call('ZREM', KEYS[7], line .. ' ' .. padded(position))
redis.call('HINCRBY', KEYS[1], 'dead', -1)
redis.call('HINCRBY', KEYS[1], 'applied', 1)
local following = head(line)
if following == '' then redis.call('HDEL', KEYS[8], line) end
return {0, following}
