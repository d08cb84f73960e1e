-- trim: remove the first entries of one partition's log and their ids rows together, or change nothing.
-- KEYS[1] log      stream  the partition's events                              all share one {partition} hash tag
-- KEYS[2] ids      hash    digest of event_id -> packed position (index.py)
-- KEYS[3] meta     hash    appended; trimmed, trimmed_bytes (of JSON), trimmed_to: what was removed, ever, and up to where;
--                          trim: the open note "trimmed-before note" of the run that is under way (settle.lua)
-- KEYS[4] groups   hash    group -> where the log was when it joined (join.lua)
-- KEYS[5] archive  hash    position: the last archived one
-- KEYS[6..] of each of head.groups its cursor (hash: position, retired) and its dead (hash), then of each of head.apps its acked (hash)
-- ARGV[1] head, a msgpack map
--         first, last  positions of the first entry and of the last to remove
--         bytes        of JSON removed
--         groups       list of [group, letters]: those the caller knows, joined or not, and how many dead entries it has looked at of each
--         ours         list of the server's groups that are ours
--         apps         list of worker apps
--         raw          how many entries were added without append.lua
--         note         who and why, JSON
-- ARGV[2] checksum: last value of the last entry to remove
-- ARGV[3] digests of the entries' event_ids, 8 bytes each    ARGV[4] their packed positions, 10 bytes each
-- ARGV[5..] field, packed position, ..: rows whose field or position is longer than usual
-- returns {OK, entries removed, rows removed}
--         {MOVED}        the log, its dead letters or who wrote to it are not what the caller looked at: look again
--         {REGROUP}      not the groups the caller knows: look again
--         {HELD, who}    it needs an entry that would go: look again
--         {UNSETTLED}    another run's note is open: settle it, and call again
-- Nothing is written unless OK. A row goes only where it names an entry that goes.  cost O(entries + groups)
-- raises  WRONGTYPE when a key has another type, before any write.
local ANSWER = {OK = 0, MOVED = 1, REGROUP = 2, HELD = 3, UNSETTLED = 4} -- TrimAnswer
local DIGEST, PLACE = 8, 10 -- bytes
local FIRST_GROUP_KEY, FIRST_LONG_ROW = 6, 5
local LOG, IDS, META, GROUPS, ARCHIVE = unpack(KEYS, 1, 5)
local head, checksum, digests, places = cmsgpack.unpack(ARGV[1]), unpack(ARGV, 2, 4)

local function padded(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local last = padded(head.last)
local function is_behind(position) return not position or position == '' or padded(position) < last end
local function facts_of(flat)
  local facts = {}
  for i = 1, #flat, 2 do facts[flat[i]] = flat[i + 1] end
  return facts
end

-- Whether the log is the one that was looked at: same ends, written to by nobody else meanwhile.
local function is_log_as_seen(trimmed, appended)
  local first = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
  local final = redis.call('XRANGE', LOG, head.last, head.last)[1]
  if not first or first[1] ~= head.first or not final or (final[2][#final[2]] or '') ~= checksum then return false end
  local added = facts_of(redis.call('XINFO', 'STREAM', LOG))['entries-added'] -- 7.0 on
  return (added or redis.call('XLEN', LOG) + trimmed) - appended == head.raw
end

-- Why the groups keep the entries from going, as an answer; and the number of the first key after theirs.
local function held_by_groups()
  local key, known = FIRST_GROUP_KEY, redis.call('HLEN', GROUPS)
  for _, entry in ipairs(head.groups) do
    local group, letters = entry[1], entry[2]
    local cursor = redis.call('HMGET', KEYS[key], 'position', 'retired')
    local is_joined = redis.call('HEXISTS', GROUPS, group)
    if is_joined == 1 and not cursor[2] and is_behind(cursor[1]) then return {ANSWER.HELD, group} end
    if redis.call('HLEN', KEYS[key + 1]) ~= letters then return {ANSWER.MOVED} end
    known, key = known - is_joined, key + 2
  end
  return known ~= 0 and {ANSWER.REGROUP} or nil, key
end

local function held_by_apps(key)
  for i, app in ipairs(head.apps) do
    local acked = redis.call('HMGET', KEYS[key + i - 1], 'position', 'forgotten')
    if not acked[2] and is_behind(acked[1]) then return {ANSWER.HELD, app} end
  end
end

-- The same of the server's groups that are not ours: what they have not read, or not acknowledged.
local function held_by_others()
  local ours = {}
  for _, name in ipairs(head.ours) do ours[name] = true end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', LOG)) do
    local group = facts_of(flat)
    if not ours[group.name] then
      local least = group.pending > 0 and redis.call('XPENDING', LOG, group.name)[2]
      if is_behind(group['last-delivered-id']) or (least and padded(least) <= last) then return {ANSWER.HELD, group.name} end
    end
  end
end

-- The fields of the rows that name an entry that goes.
local function rows_going()
  local going, n = {}, #digests / DIGEST
  if n > 0 then
    local fields = {struct.unpack(string.rep('c' .. DIGEST, n), digests)}
    fields[n + 1] = nil -- struct.unpack adds where it stopped
    local rows = redis.call('HMGET', IDS, unpack(fields))
    for i = 1, n do
      if rows[i] == string.sub(places, (i - 1) * PLACE + 1, i * PLACE) then going[#going + 1] = fields[i] end
    end
  end
  for i = FIRST_LONG_ROW, #ARGV, 2 do
    if redis.call('HGET', IDS, ARGV[i]) == ARGV[i + 1] then going[#going + 1] = ARGV[i] end
  end
  return going
end

-- Plan: everything that can fail, or that needs what would go.
redis.call('HLEN', IDS)
local meta = redis.call('HMGET', META, 'trimmed', 'appended', 'trim')
local trimmed, appended, open = meta[1] or '0', meta[2] or '0', meta[3]
if not is_log_as_seen(trimmed, appended) then return {ANSWER.MOVED} end
local held, next_key = held_by_groups()
held = held or held_by_apps(next_key) or held_by_others()
if held then return held end
if is_behind(redis.call('HGET', ARCHIVE, 'position')) then return {ANSWER.HELD, ''} end
if open and string.match(open, '^%d+ (.*)$') ~= head.note then return {ANSWER.UNSETTLED} end
local going = rows_going()
local following = redis.call('XRANGE', LOG, '(' .. head.last, '+', 'COUNT', 1)[1]

-- Commit. XTRIM comes first: it is not refused when memory is short, and what follows it in the script neither.
local removed
if following then
  removed = redis.call('XTRIM', LOG, 'MINID', '=', following[1])
else
  removed = redis.call('XTRIM', LOG, 'MAXLEN', '=', 0)
end
if #going > 0 then redis.call('HDEL', IDS, unpack(going)) end
redis.call('HINCRBY', META, 'trimmed', removed)
redis.call('HINCRBY', META, 'trimmed_bytes', head.bytes)
redis.call('HSET', META, 'trimmed_to', head.last)
if not open then redis.call('HSET', META, 'trim', trimmed .. ' ' .. head.note) end
return {ANSWER.OK, removed, #going}
