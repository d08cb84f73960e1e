-- commit: move one projection's view of one partition forward by one batch, or change nothing.
-- KEYS[1] cursor  hash    position, read, .., fingerprint, repairs; retired; moved_ms, server time   all share one {partition} hash tag
-- KEYS[2] log     stream  the partition's events
-- KEYS[3] ids     hash    digest of event_id -> packed position of the canonical entry
-- KEYS[4] lease   hash    owner, epoch: who may commit (streams/lease.lua)
-- KEYS[5] meta    hash    appended: how many entries append.lua made; trimmed: how many the trimmer took away
-- KEYS[6..] tables of the view, and dead: hashes and sorted sets
-- ARGV[1] head, a msgpack map:
--         position     of the batch's last entry     after  position it was folded from, '' at the start     first  of its first entry
--         fingerprint  of the view, as it was when the batch was folded; of the definition, where it had none
--         repairs      the cursor had when the states were loaded: rows were put right since, if it has more (subject.lua)
--         source       where the entries come from:
--             here       this log: they must be what follows the cursor in it
--             pure       the same, and no digests are sent: append.lua must have made every entry
--             archive    the archive: nothing is compared, and which of them are duplicates the caller knows from there
--             elsewhere  a log that is not on this server
--         epoch        of the caller's lease; absent to compare none
--         group        that follows the cursor; absent for none, and where the log is elsewhere
--         read         how many entries the cursor has read after the batch, for the group
--         kinds        of KEYS[6..], 'hash' or 'zset' each
--         cursor, judged  how many arguments each of these sections has
--         operations   list of {key, command, first, last}: indexes into KEYS and ARGV; HSET, HDEL, ZADD or ZREM
-- ARGV[2] digests of the canonical events, 8 bytes each  [3] their packed positions, 10 bytes each
-- ARGV[4] last value of the batch's last entry, its checksum: that the position names the same event here
-- ARGV[5..] cursor: field, value, ..                        written as they are
--         judged: verdict, field, packed position, position: events whose ids row was judged by the caller
--             duplicate: another entry is canonical; adopted: none was, this one becomes it; canonical: by a long field
--         operands of the operations
-- returns {ANSWER, what is said beside it}; OK, whether the group is there (1 or 0; 1 where none was named), and the server's TIME
--         when this began: seconds, microseconds
-- parts   streams/follow.lua
-- Nothing is written unless OK. All writes are absolute, so a repeat is harmless (it is STALE).  cost O(events + operands)
local ANSWER = {
  OK = 0,
  STALE = 1,     -- stored position: someone else advanced, or repaired: drop states, read again from the cursor
  GAP = 2,       -- position after the cursor or '': the log is not what was read
  ODD = 3,       -- indexes (from 1) into the digests whose ids row is missing or names another entry: judge them, call again
  BROKEN = 4,    -- key, type: a key has a type it never gets from us
  REDEFINED = 5, -- fingerprint: the view was folded by another definition
  FENCED = 6,    -- epoch: a newer owner holds the lease
  REWOUND = 7,   -- entries the log ever got, entries the view has read: it was deleted, or restored from an older copy
  RETIRED = 8,   -- the view's generation was given up: its cursor is a tombstone
  BEHIND = 9,    -- entries the view has read, entries trimmed: some that it has not read are in the archive alone
  IMPURE = 10,   -- 'pure' was said and entries were added by others: call again as 'here', with digests
}
local FIRST_KINDS = {'hash', 'stream', 'hash', 'hash', 'hash'}
local CHUNK = 4000 -- unpack fails at about 8,000
local FIXED = 4 -- arguments before the sections
local head, digests, packed_positions, last_value = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local began = redis.call('TIME')

-- The answer where a key holds what it never gets from us.
local function broken()
  for i = 1, #KEYS do
    local kind = redis.call('TYPE', KEYS[i]).ok
    if kind ~= 'none' and kind ~= (FIRST_KINDS[i] or head.kinds[i - #FIRST_KINDS]) then return {ANSWER.BROKEN, KEYS[i], kind} end
  end
end

-- The answer where the caller folded from another cursor, by another definition or without the lease.
local function outdated(position, fingerprint, retired, repairs)
  if retired then return {ANSWER.RETIRED} end
  if head.epoch then
    local epoch = tonumber(redis.call('HGET', KEYS[4], 'epoch') or 0)
    if epoch > head.epoch then return {ANSWER.FENCED, epoch} end
  end
  if position ~= head.after or repairs ~= head.repairs then return {ANSWER.STALE, position} end
  if fingerprint and fingerprint ~= head.fingerprint then return {ANSWER.REDEFINED, fingerprint} end
end

-- Where the entries are of this log: the answer where they are not what follows the cursor in it, and whether append.lua made all.
-- added: how many entries the log ever got, deleted and trimmed ones included; nil before 7.0.
local function compared(read, added)
  local meta = redis.call('HMGET', KEYS[5], 'appended', 'trimmed')
  local appended, trimmed = tonumber(meta[1] or -1), tonumber(meta[2] or 0)
  if read < trimmed then return {ANSWER.BEHIND, read, trimmed} end
  local from = head.after == '' and '-' or '(' .. head.after
  local following = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 1)[1]
  if not following or following[1] ~= head.first then return {ANSWER.GAP, following and following[1] or ''} end
  local last = redis.call('XRANGE', KEYS[2], head.position, head.position)[1]
  if not last or (last[2][#last[2]] or '') ~= last_value then return {ANSWER.GAP, ''} end
  if added and added < read then return {ANSWER.REWOUND, added, read} end
  -- Where append.lua made every entry, each event ID is in the log once: no need to look at the index. Replication and AOF are
  -- prefixes, so a log that holds a batch's last entry holds the batch.
  local is_pure = added == appended
  if head.source == 'pure' and not is_pure then return {ANSWER.IMPURE} end
  return nil, is_pure
end

-- Which digests the index does not name: one comparison for a chunk, event by event only where there are any.
local function unnamed()
  local places = {}
  for before = 0, #digests / 8 - 1, CHUNK do
    local n = math.min(CHUNK, #digests / 8 - before)
    local fields = {struct.unpack(string.rep('c8', n), digests, before * 8 + 1)}
    fields[n + 1] = nil -- struct.unpack adds where it stopped
    local rows = redis.call('HMGET', KEYS[3], unpack(fields))
    for i = 1, n do rows[i] = rows[i] or '' end
    if table.concat(rows) ~= string.sub(packed_positions, before * 10 + 1, (before + n) * 10) then
      for i = 1, n do
        local at = before + i
        if rows[i] ~= string.sub(packed_positions, at * 10 - 9, at * 10) then places[#places + 1] = at end
      end
    end
  end
  return places
end

-- The ids rows to be made; nil, and the answer, where a verdict does not hold.
local function adopted_rows(is_here)
  local adopted, first = {}, FIXED + head.cursor + 1
  for i = first, first + head.judged - 1, 4 do
    local verdict, field, packed, position = unpack(ARGV, i, i + 3)
    local row = redis.call('HGET', KEYS[3], field) or adopted[field]
    local holds = (verdict == 'duplicate' and row and row ~= packed) or (verdict == 'canonical' and row == packed)
    if verdict == 'adopted' and not row then
      holds = not is_here or redis.call('XRANGE', KEYS[2], position, position)[1]
      adopted[field] = packed
    end
    if not holds then return nil, {ANSWER.GAP, position} end
  end
  return adopted
end

-- Plan: everything that can fail or disagree.
local refusal = broken()
if refusal then return refusal end
local position, fingerprint, read, retired, repairs = unpack(redis.call('HMGET', KEYS[1], 'position', 'fingerprint', 'read', 'retired', 'repairs'))
refusal = outdated(position or '', fingerprint, retired, tonumber(repairs or 0))
if refusal then return refusal end
local is_pure, adopted
local is_here = head.source == 'here' or head.source == 'pure'
local added, last_given
if is_here then
  added, last_given = log_facts(KEYS[2])
  refusal, is_pure = compared(tonumber(read or 0), added)
end
if refusal then return refusal end
local places = is_pure and {} or unnamed()
adopted, refusal = adopted_rows(is_here)
if refusal then return refusal end
if #places > 0 then return {ANSWER.ODD, places} end

-- Commit: only what cannot fail.
for field, packed in pairs(adopted) do redis.call('HSET', KEYS[3], field, packed) end
for _, operation in ipairs(head.operations) do
  local key, command, first, last = unpack(operation)
  for i = first, last, CHUNK do
    redis.call(command, KEYS[key], unpack(ARGV, i, math.min(i + CHUNK - 1, last)))
  end
end
local now = string.format('%.0f', began[1] * 1000 + math.floor(began[2] / 1000))
redis.call('HSET', KEYS[1], 'moved_ms', now, unpack(ARGV, FIXED + 1, FIXED + head.cursor))
local is_grouped = not (is_here and head.group) or follow(KEYS[2], head.group, head.position, head.read, added, last_given)
return {ANSWER.OK, is_grouped and 1 or 0, began[1], began[2]}
