-- append: put a batch of events into one partition's log, each event ID once, or change nothing.
-- KEYS[1] log       stream  the partition's events: fields event, crc32        all share one {partition} hash tag
-- KEYS[2] ids       hash    digest of event_id -> packed position (index.py)
-- KEYS[3] meta      hash    appended, duplicates
-- KEYS[4] versions  hash    subject -> number of its events; used only where ARGV[3] is not empty
-- ARGV    [1] digests, 8 bytes each  [2] lines "crc32 JSON\n", one per event, at most 500
--         [3] lines "subject\n", one per event, or '' in a stream without versions
--         [4] lines "subject expected\n": the version each named subject must have
-- returns {0 OK, positions, indexes (from 1) of the duplicates}
--         {1 CONFLICT, subject, its version}     nothing written
--         {2 DANGLING, event_id, position}       ids names an entry the log no longer has; nothing written
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(events)
local function id_of(event)
  return string.match(event, '^{"type":"[^"]*","event_id":"([^"]*)"') or cjson.decode(event).event_id
end
local function packed(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  if #ms > 14 or #seq > 9 then return position end
  return struct.pack('>I6I4', tonumber(ms), tonumber(seq))
end
local function unpacked(value)
  if #value ~= 10 then return value end
  return string.format('%.0f-%.0f', struct.unpack('>I6I4', value))
end
local function event_at(position)
  local entry = redis.call('XRANGE', KEYS[1], position, position)[1]
  if not entry then return nil end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'event' then return entry[2][i + 1] end
  end
end

redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[4])

-- Plan: which events are new, and where the known ones are.
local crcs, events, fields, n = {}, {}, {}, 0
for crc, event in string.gmatch(ARGV[2], '(%d+) ([^\n]+)\n') do
  n = n + 1
  crcs[n], events[n], fields[n] = crc, event, string.sub(ARGV[1], n * 8 - 7, n * 8)
end
local held = redis.call('HMGET', KEYS[2], unpack(fields))
local positions, duplicate_of, planned, duplicates = {}, {}, {}, {}
for i = 1, n do
  local known = held[i] and unpacked(held[i])
  local twin = planned[fields[i]]
  if known or twin then
    local id = id_of(events[i])
    local other = twin and events[twin] or event_at(known)
    if not other then return {2, id, known} end
    if id_of(other) ~= id then
      fields[i] = 'event_id=' .. id
      local row = redis.call('HGET', KEYS[2], fields[i])
      known, twin = row and unpacked(row), planned[fields[i]]
    end
  end
  if twin then
    duplicate_of[i] = twin
  elseif known then
    positions[i] = known
  else
    planned[fields[i]] = i
  end
  if twin or known then duplicates[#duplicates + 1] = i end
end
local new, subjects = n - #duplicates, {}
if ARGV[3] ~= '' then
  local fresh, at = {}, 0
  for subject in string.gmatch(ARGV[3], '([^\n]+)\n') do
    at = at + 1
    if not positions[at] and not duplicate_of[at] then
      subjects[#subjects + 1], fresh[subject] = subject, true
    end
  end
  for subject, expected in string.gmatch(ARGV[4], '(%S+) (%d+)\n') do
    local version = redis.call('HGET', KEYS[4], subject) or '0'
    if fresh[subject] and version ~= expected then return {1, subject, version} end
  end
end

-- Commit. XADD comes first: should it fail (memory, exhausted IDs), nothing has been written yet.
local rows = {}
for i = 1, n do
  if not positions[i] and not duplicate_of[i] then
    positions[i] = redis.call('XADD', KEYS[1], '*', 'event', events[i], 'crc32', crcs[i])
    rows[#rows + 1] = fields[i]
    rows[#rows + 1] = packed(positions[i])
  end
end
for i, twin in pairs(duplicate_of) do positions[i] = positions[twin] end
if #rows > 0 then redis.call('HSET', KEYS[2], unpack(rows)) end
for i = 1, #subjects do redis.call('HINCRBY', KEYS[4], subjects[i], 1) end
if new > 0 then redis.call('HINCRBY', KEYS[3], 'appended', new) end
-- A repeat writes too: WAIT vouches only for writes, and the caller may be asking for the first time.
if #duplicates > 0 then redis.call('HINCRBY', KEYS[3], 'duplicates', #duplicates) end
return {0, positions, duplicates}
