-- commit: move one projection's view of one partition forward by one batch, or change nothing.
-- KEYS[1] cursor  hash    position, read, .., fingerprint, repairs; retired      all share one {partition} hash tag
-- KEYS[2] log     stream  the partition's events
-- KEYS[3] ids     hash    digest of event_id -> packed position of the canonical entry
-- KEYS[4] lease   hash    owner, epoch: who may commit (streams/lease.lua)
-- KEYS[5] meta    hash    appended: how many entries append.lua made; trimmed: how many the trimmer took away
-- KEYS[6..] tables of the view, and dead: hashes and sorted sets
-- ARGV    [1] position of the batch's last entry  [2] position it was folded from, '' at the start  [3] of its first entry
--         [4] digests of the canonical events, 8 bytes each  [5] their packed positions, 10 bytes each
--         [6] fingerprint of the projection's definition  [7] types of KEYS[6..], 'h' or 'z' each
--         [9] epoch of the caller's lease, '' to compare none  [10] where the entries come from:
--             here       this log: they must be what follows the cursor in it
--             pure       the same, and no digests are sent: append.lua must have made every entry
--             archive    the archive: nothing is compared, and which of them are duplicates the caller knows from there
--             elsewhere  a log that is not on this server
--         [11] last value of the batch's last entry, its checksum: that the position names the same event here
--         [12] repairs the cursor had when the states were loaded: rows were put right since, if it has more (subject.lua)
--         [8] lengths of the three sections that follow [12], "c o", and the operations, lines "key command first last\n":
--             cursor: c values field, value, ..                        written as they are
--             odd:    o values class, field, packed position, position: events whose ids row was resolved by the caller
--                     duplicate: another entry is canonical; adopted: none was, this one becomes it; canonical: by a long field
--             operands of the operations; first and last are indexes into ARGV; command HSET, HDEL, ZADD or ZREM
-- returns {0 OK}
--         {1 STALE, stored position}   someone else advanced, or repaired: drop states, read again from the cursor
--         {2 GAP, position after the cursor or ''}  the log is not what was read
--         {3 ODD, indexes (from 1) into [4] whose ids row is missing or names another entry}: resolve and call again
--         {4 BROKEN, key, type}        a key has a type it never gets from us
--         {5 REDEFINED, fingerprint}   the view was folded by another definition
--         {6 FENCED, epoch}            a newer owner holds the lease
--         {7 REWOUND, entries the log ever got, entries the view has read}  it was deleted, or restored from an older copy
--         {8 RETIRED}                  the view's generation was given up: its cursor is a tombstone
--         {9 BEHIND, entries the view has read, entries trimmed}  some that it has not read are in the archive alone
--         {10 IMPURE}                  'pure' was said and entries were added by others: call again as 'here', with digests
-- Nothing is written unless OK. All writes are absolute, so a repeat is harmless (it is STALE).  cost O(events + operands)
local CHUNK = 4000 -- unpack fails at about 8,000

local function kind_of(key) return redis.call('TYPE', key).ok end
local function wants(key, kind)
  local found = kind_of(key)
  if found ~= 'none' and found ~= kind then return {4, key, found} end
end

-- How many entries the log ever got, deleted and trimmed ones included; nil before 7.0.
local function entries_added()
  local facts = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #facts, 2 do
    if facts[i] == 'entries-added' then return facts[i + 1] end
  end
end

-- Plan: everything that can fail or disagree.
local broken = wants(KEYS[1], 'hash') or wants(KEYS[2], 'stream') or wants(KEYS[3], 'hash') or wants(KEYS[4], 'hash') or wants(KEYS[5], 'hash')
for i = 6, #KEYS do
  broken = broken or wants(KEYS[i], string.sub(ARGV[7], i - 5, i - 5) == 'z' and 'zset' or 'hash')
end
if broken then return broken end

local at = redis.call('HMGET', KEYS[1], 'position', 'fingerprint', 'read', 'retired', 'repairs')
if at[4] then return {8} end
if ARGV[9] ~= '' then
  local epoch = tonumber(redis.call('HGET', KEYS[4], 'epoch') or 0)
  if epoch > tonumber(ARGV[9]) then return {6, epoch} end
end
if (at[1] or '') ~= ARGV[2] then return {1, at[1] or ''} end
if (at[5] or '0') ~= ARGV[12] then return {1, at[1] or ''} end
if at[2] and at[2] ~= ARGV[6] then return {5, at[2]} end

local is_here, is_pure = ARGV[10] == 'here' or ARGV[10] == 'pure', false
if is_here then
  local meta = redis.call('HMGET', KEYS[5], 'appended', 'trimmed')
  if tonumber(at[3] or 0) < tonumber(meta[2] or 0) then return {9, tonumber(at[3] or 0), tonumber(meta[2])} end
  local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
  local following = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 1)[1]
  if not following or following[1] ~= ARGV[3] then return {2, following and following[1] or ''} end
  local last = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
  if not last or (last[2][#last[2]] or '') ~= ARGV[11] then return {2, ''} end
  local added = entries_added()
  if added and added < tonumber(at[3] or 0) then return {7, added, at[3]} end
  -- Where append.lua made every entry, each event ID is in the log once: no need to look at the index. Replication and AOF are
  -- prefixes, so a log that holds a batch's last entry holds the batch.
  is_pure = added == tonumber(meta[1] or -1)
  if ARGV[10] == 'pure' and not is_pure then return {10} end
end

local lengths, operations = string.match(ARGV[8], '^([%d ]+)\n(.*)$')
local c, o = string.match(lengths, '(%d+) (%d+)')
local odd_from = 13 + c

-- One comparison for the whole batch; which events are strange is looked up only where there are any.
local n = #ARGV[4] / 8
local strange = {}
if n > 0 and not is_pure then
  local fields = {struct.unpack(string.rep('c8', n), ARGV[4])}
  fields[n + 1] = nil -- struct.unpack adds where it stopped
  local rows = redis.call('HMGET', KEYS[3], unpack(fields))
  for i = 1, n do rows[i] = rows[i] or '' end
  if table.concat(rows) ~= ARGV[5] then
    for i = 1, n do
      if rows[i] ~= string.sub(ARGV[5], i * 10 - 9, i * 10) then strange[#strange + 1] = i end
    end
  end
end
local adopted = {}
for i = odd_from, odd_from + o - 1, 4 do
  local class, field, packed = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local row = redis.call('HGET', KEYS[3], field) or adopted[field]
  local fits = (class == 'duplicate' and row and row ~= packed) or (class == 'canonical' and row == packed)
  if class == 'adopted' and not row then
    fits = not is_here or redis.call('XRANGE', KEYS[2], ARGV[i + 3], ARGV[i + 3])[1]
    adopted[field] = packed
  end
  if not fits then return {2, ARGV[i + 3]} end
end
if #strange > 0 then return {3, strange} end

-- Commit: only what cannot fail.
for field, packed in pairs(adopted) do redis.call('HSET', KEYS[3], field, packed) end
for key, command, first, last in string.gmatch(operations, '(%d+) (%a+) (%d+) (%d+)\n') do
  for i = first, last, CHUNK do
    redis.call(command, KEYS[tonumber(key)], unpack(ARGV, i, math.min(i + CHUNK - 1, last)))
  end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 13, odd_from - 1))
return {0}
