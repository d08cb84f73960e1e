-- append: put a batch of events into one partition's log, each event ID once, or change nothing.
-- All keys share one {partition} hash tag.
-- KEYS[1] LOG       stream  the partition's events: fields event, crc32
-- KEYS[2] IDS       hash    digest of event_id -> packed position (index.py)
-- KEYS[3] META      hash    appended, bytes (of JSON), duplicates, clear (budget.lua)
-- KEYS[4] VERSIONS  hash    subject -> number of its events; with [5], used only where the head has subjects
-- KEYS[5] ENTITIES  hash    subject|chunk -> packed positions of its events (entities.py)
-- KEYS[6] GROUPS    hash    group -> the log when it joined (join.lua); with [7..], only with a budget
-- KEYS[7..] cursors hashes  read, read_bytes: of the head's groups, in that order
-- ARGV[1] head      msgpack map; each may be left out
--           spare     true: a server that has reached its maxmemory takes them (spare.py)
--           subjects  list, one per event, in a stream with versions
--           expected  map: subject -> the version it must have
--           budget    map: events, bytes, 0 for none: how far the log may be ahead of the slowest group
--           groups    list: the groups the caller knows
-- ARGV[2] digests   8 bytes per event, at most 500 of them
-- ARGV[3] lines     "crc32 JSON\n" per event
-- ARGV[4] after     digest of an event that must be in the log before these, or ''; asked only with a budget
-- returns {OK, positions, indexes (from 1) of the duplicates}
--         {CONFLICT, subject, its version}     nothing written, nor by any answer below
--         {DANGLING, event_id, position}       IDS names an entry the log no longer has
--         {FULL, group, events, bytes}         it is so far behind that these do not fit
--         {REGROUP, groups ..}                 not the groups the caller knows
--         {EARLY}                              the event of ARGV[4] is not in the log
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(events)
-- parts   append/names, places, known, versions, budget, entities; before this one, in this order
local head = cmsgpack.unpack(ARGV[1])
redis.call('HLEN', META) -- of the others, IDS is read before anything is written, and LOG is written first
redis.call('HLEN', VERSIONS)
redis.call('HLEN', ENTITIES)

-- Plan: what is new, and whether it may be added.
local crcs, events, n = {}, {}, 0
for crc, event in string.gmatch(ARGV[3], '(%d+) ([^\n]+)\n') do
  n = n + 1
  crcs[n], events[n] = crc, event
end
local fields = {struct.unpack(string.rep('c8', n), ARGV[2])}
fields[n + 1] = nil -- struct.unpack adds where it stopped
local new, positions, twins, duplicates = look_up(fields, events)
if not new then return positions end
local refused, clear, subjects, versions, events_of
if head.subjects then
  subjects, versions, events_of = touch(head.subjects, new)
  refused = head.expected and conflict(subjects, versions, head.expected)
  if refused then return refused end
end
local size = 0
for k = 1, #new do size = size + #events[new[k]] end
if head.budget and #new > 0 then
  if ARGV[4] ~= '' and redis.call('HEXISTS', IDS, ARGV[4]) == 0 then return {EARLY} end
  refused, clear = over_budget(head.budget, head.groups or {}, #new, size)
  if refused then return refused end
end

-- Commit. XADD comes first: should it fail (memory, exhausted IDs), nothing has been written yet.
if head.spare then redis.call('HDEL', META, '') end -- removes nothing: a script that has begun to write is let through
local rows = {}
for k = 1, #new do
  local i = new[k]
  local position = redis.call('XADD', LOG, '*', 'event', events[i], 'crc32', crcs[i])
  positions[i], rows[2 * k - 1], rows[2 * k] = position, fields[i], packed(position)
end
for i, twin in pairs(twins) do positions[i] = positions[twin] end
if subjects and #new > 0 then index_entities(subjects, versions, events_of, rows) end
if #new > 0 then
  redis.call('HSET', IDS, unpack(rows))
  redis.call('HINCRBY', META, 'appended', #new)
  redis.call('HINCRBY', META, 'bytes', size)
  if clear then redis.call('HSET', META, 'clear', clear) end
end
-- A repeat writes too: WAIT vouches only for writes, and the caller may be asking for the first time.
if #duplicates > 0 then redis.call('HINCRBY', META, 'duplicates', #duplicates) end
return {OK, positions, duplicates}
