-- append: put a batch of events into one partition's log, each event ID once, or change nothing.
-- KEYS[1] log       stream  the partition's events: fields event, crc32        all share one {partition} hash tag
-- KEYS[2] ids       hash    digest of event_id -> packed position (index.py)
-- KEYS[3] meta      hash    appended, bytes (of JSON), duplicates, clear: "budget events bytes", how far all groups allow
-- KEYS[4] versions  hash    subject -> number of its events; used only where ARGV[3] is not empty, as is
-- KEYS[5] entities  hash    subject|chunk -> packed positions of its events (entities.py)
-- KEYS[6] groups    hash    group -> "events bytes ..": the log when it joined (join.lua); only where ARGV[5] is not empty
-- KEYS[7..] cursors hashes  read, read_bytes: of the groups named in ARGV[6], in that order
-- ARGV    [1] digests, 8 bytes each  [2] lines "crc32 JSON\n", one per event, at most 500
--         [3] lines "subject\n", one per event, or '' in a stream without versions
--         [4] lines "subject expected\n": the version each named subject must have
--         [5] budget "events bytes", 0 for none: how far the log may be ahead of the slowest group; '' to ask nobody
--         [6] lines "group\n": the groups the caller knows  [7] digest of an event that must be in the log before these, or ''
-- returns {0 OK, positions, indexes (from 1) of the duplicates}
--         {1 CONFLICT, subject, its version}     nothing written
--         {2 DANGLING, event_id, position}       ids names an entry the log no longer has; nothing written
--         {3 FULL, group, events, bytes}         it is so far behind that these do not fit; nothing written
--         {4 REGROUP, groups ..}                 not the groups the caller knows; nothing written
--         {5 EARLY}                              the event of ARGV[7] is not in the log; nothing written
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(events)
local function id_of(event)
  return string.match(event, '^{"type":"[^"]*","event_id":"([^"]*)"') or cjson.decode(event).event_id
end
local last_ms, packed_ms -- the entries of one call mostly share their millisecond
local function packed(position)
  local dash = string.find(position, '-', 1, true)
  local ms, seq = string.sub(position, 1, dash - 1), string.sub(position, dash + 1)
  if #ms > 14 or #seq > 9 then return position end
  if ms ~= last_ms then last_ms, packed_ms = ms, struct.pack('>I6', tonumber(ms)) end
  return packed_ms .. struct.pack('>I4', tonumber(seq))
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
local OVERHEAD = 128 -- bytes an event takes besides its JSON: its entry and its ids row (pressure.py)
-- What to answer when `new` events of `size` bytes do not fit. Else nothing, and how far the log may grow before anyone must be asked
-- again: groups only advance and new ones join at the end, so what fits all of them now is safe until then.
local function over_budget(new, size)
  local meta = redis.call('HMGET', KEYS[3], 'trimmed', 'bytes', 'clear')
  local held = redis.call('XLEN', KEYS[1]) + (meta[1] or 0)
  local weight = (meta[2] or 0) + held * OVERHEAD
  local events, bytes = held + new, weight + size + new * OVERHEAD
  local budget, safe_events, safe_bytes = string.match(meta[3] or '', '^(%d+ %d+) (%d+) (%d+)$')
  if budget == ARGV[5] and events <= tonumber(safe_events) and bytes <= tonumber(safe_bytes) then return end

  local names = {}
  for name in string.gmatch(ARGV[6], '([^\n]+)\n') do names[#names + 1] = name end
  local joined = #names > 0 and redis.call('HMGET', KEYS[6], unpack(names)) or {}
  local known = redis.call('HLEN', KEYS[6])
  for i = 1, #names do known = known - (joined[i] and 1 or -1) end
  if known ~= 0 then return {4, unpack(redis.call('HKEYS', KEYS[6]))} end

  local most_events, most_bytes = string.match(ARGV[5], '(%d+) (%d+)')
  most_events = tonumber(most_events) > 0 and tonumber(most_events) or 2 ^ 53
  most_bytes = tonumber(most_bytes) > 0 and tonumber(most_bytes) or 2 ^ 53
  local least, least_weight, worst = held, weight, nil
  for i = 1, #names do
    local from, from_bytes = string.match(joined[i], '^(%d+) (%d+)')
    local at = redis.call('HMGET', KEYS[6 + i], 'read', 'read_bytes')
    from = math.min(held, math.max(at[1] or 0, from))
    from_bytes = math.min(weight, math.max(at[2] or 0, from_bytes) + from * OVERHEAD)
    -- What alone exceeds a budget is let in when nothing is ahead, or it could never be appended.
    local over = from < held and (events - from > most_events or bytes - from_bytes > most_bytes)
    if over and (not worst or from < least) then worst = {3, names[i], held - from, weight - from_bytes} end
    least, least_weight = math.min(least, from), math.min(least_weight, from_bytes)
  end
  if worst then return worst end
  return nil, string.format('%s %.0f %.0f', ARGV[5], least + most_events, least_weight + most_bytes)
end

local CHUNK, NOWHERE = 16, string.rep('\0', 10) -- places a row of entities has; a place whose position is longer than packed ones are
-- Give the new events' places to their subjects, whose events they are next. order: subjects; versions: how many events each has;
-- places: subject -> packed positions. All rows are read by one command and written by one: each costs more than what is in it.
local function index_entities(order, versions, places)
  local fields, counts, rows = {}, {}, {}
  for i = 1, #order do
    local slot = versions[i] % CHUNK
    fields[i] = string.format('%s|%.0f', order[i], (versions[i] - slot) / CHUNK)
  end
  local held = redis.call('HMGET', KEYS[5], unpack(fields))
  for i = 1, #order do
    local number, field = versions[i], fields[i]
    local row = string.sub(held[i] or '', 1, number % CHUNK * 10)
    row = row .. string.rep(NOWHERE, number % CHUNK - #row / 10) -- events from before there was an index
    for _, place in ipairs(places[order[i]]) do
      local slot = number % CHUNK
      if slot == 0 and row ~= '' then
        rows[#rows + 1], rows[#rows + 2] = field, row
        row, field = '', string.format('%s|%.0f', order[i], number / CHUNK)
      end
      if #place ~= 10 then rows[#rows + 1], rows[#rows + 2] = string.format('%s|%.0f', field, slot), place end
      row, number = row .. (#place == 10 and place or NOWHERE), number + 1
    end
    rows[#rows + 1], rows[#rows + 2] = field, row
    counts[2 * i - 1], counts[2 * i] = order[i], string.format('%.0f', number)
  end
  redis.call('HSET', KEYS[4], unpack(counts))
  redis.call('HSET', KEYS[5], unpack(rows))
end

redis.call('XLEN', KEYS[1])
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[4])
redis.call('HLEN', KEYS[5])

-- Plan: which events are new, and where the known ones are.
local crcs, events, n = {}, {}, 0
for crc, event in string.gmatch(ARGV[2], '(%d+) ([^\n]+)\n') do
  n = n + 1
  crcs[n], events[n] = crc, event
end
local fields = {struct.unpack(string.rep('c8', n), ARGV[1])}
fields[n + 1] = nil -- struct.unpack adds where it stopped
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
local new, size = n - #duplicates, 0
local subjects, order, places, versions = {}, {}, {}, {} -- of the new events, in a stream with versions
for i = 1, n do
  if not positions[i] and not duplicate_of[i] then size = size + #events[i] end
end
if ARGV[3] ~= '' then
  local at = 0
  for subject in string.gmatch(ARGV[3], '([^\n]+)\n') do
    at = at + 1
    if not positions[at] and not duplicate_of[at] then
      subjects[#subjects + 1] = subject
      if not places[subject] then order[#order + 1], places[subject] = subject, {} end
    end
  end
  if #order > 0 then versions = redis.call('HMGET', KEYS[4], unpack(order)) end
  for i = 1, #order do versions[i] = tonumber(versions[i] or 0) + 0 end -- raises where it is no number
  for subject, expected in string.gmatch(ARGV[4], '(%S+) (%d+)\n') do
    local version = redis.call('HGET', KEYS[4], subject) or '0'
    if places[subject] and version ~= expected then return {1, subject, version} end
  end
end
local refused, clear
if ARGV[5] and ARGV[5] ~= '' and new > 0 then
  if ARGV[7] ~= '' and redis.call('HEXISTS', KEYS[2], ARGV[7]) == 0 then return {5} end
  refused, clear = over_budget(new, size)
  if refused then return refused end
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
if #order > 0 then
  for i = 1, #subjects do table.insert(places[subjects[i]], rows[2 * i]) end
  index_entities(order, versions, places)
end
if new > 0 then
  redis.call('HINCRBY', KEYS[3], 'appended', new)
  redis.call('HINCRBY', KEYS[3], 'bytes', size)
  if clear then redis.call('HSET', KEYS[3], 'clear', clear) end
end
-- A repeat writes too: WAIT vouches only for writes, and the caller may be asking for the first time.
if #duplicates > 0 then redis.call('HINCRBY', KEYS[3], 'duplicates', #duplicates) end
return {0, positions, duplicates}
