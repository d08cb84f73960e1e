-- trim: remove the first entries of one partition's log and their ids rows together, or change nothing.
-- KEYS[1] log      stream  the partition's events                              all share one {partition} hash tag
-- KEYS[2] ids      hash    digest of event_id -> packed position (index.py)
-- KEYS[3] meta     hash    appended; trimmed, trimmed_bytes (of JSON), trimmed_to: what was removed, ever, and up to where;
--                          trim: the open note "trimmed-before note" of the run that is under way (settle.lua)
-- KEYS[4] groups   hash    group -> where the log was when it joined (join.lua)
-- KEYS[5] archive  hash    position: the last archived one
-- KEYS[6..] of each group named in ARGV[7] its cursor (hash: position, retired) and its dead (hash), then of each app its acked (hash)
-- ARGV    [1] position of the first entry  [2] of the last to remove  [3] last value of that one, its checksum
--         [4] bytes of JSON removed  [5] digests of the entries' event_ids, 8 bytes each  [6] their packed positions, 10 bytes each
--         [7] lines "group dead\n": the groups the caller knows, joined or not, and how many dead entries it has looked at of each
--         [8] lines "name\n": the server's groups that are ours  [9] lines "app\n"  [10] entries added without append.lua
--         [11] note: who and why, JSON  [12..] field, packed position, ..: rows whose field or position is longer than usual
-- returns {0 OK, entries removed, rows removed}
--         {1 MOVED}          the log, its dead letters or who wrote to it are not what the caller looked at: look again
--         {2 REGROUP}        not the groups the caller knows: look again
--         {3 HELD, who}      it needs an entry that would go: look again
--         {4 UNSETTLED}      another run's note is open: settle it, and call again
-- Nothing is written unless OK. A row goes only where it names an entry that goes.  cost O(entries + groups)
-- raises  WRONGTYPE when a key has another type, before any write.
local function padded(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local last = padded(ARGV[2])
local function is_behind(position) return not position or position == '' or padded(position) < last end
local function facts_of(flat)
  local facts = {}
  for i = 1, #flat, 2 do facts[flat[i]] = flat[i + 1] end
  return facts
end

-- Plan: everything that can fail, or that needs what would go.
redis.call('HLEN', KEYS[2])
local meta = redis.call('HMGET', KEYS[3], 'trimmed', 'appended', 'trim')
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local final = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if not first or first[1] ~= ARGV[1] or not final or (final[2][#final[2]] or '') ~= ARGV[3] then return {1} end
local added = facts_of(redis.call('XINFO', 'STREAM', KEYS[1]))['entries-added'] -- 7.0 on
added = added or redis.call('XLEN', KEYS[1]) + (meta[1] or 0)
if added - (meta[2] or 0) ~= tonumber(ARGV[10]) then return {1} end

local key, known = 5, redis.call('HLEN', KEYS[4])
for group, dead in string.gmatch(ARGV[7], '(%S+) (%d+)\n') do
  local at = redis.call('HMGET', KEYS[key + 1], 'position', 'retired')
  local letters = redis.call('HLEN', KEYS[key + 2])
  local is_joined = redis.call('HEXISTS', KEYS[4], group)
  known, key = known - is_joined, key + 2
  if is_joined == 1 and not at[2] and is_behind(at[1]) then return {3, group} end
  if letters ~= tonumber(dead) then return {1} end
end
if known ~= 0 then return {2} end
for app in string.gmatch(ARGV[9], '([^\n]+)\n') do
  key = key + 1
  if is_behind(redis.call('HGET', KEYS[key], 'position')) then return {3, app} end
end
local ours = {}
for name in string.gmatch(ARGV[8], '([^\n]+)\n') do ours[name] = true end
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = facts_of(flat)
  if not ours[group.name] then
    local least = group.pending > 0 and redis.call('XPENDING', KEYS[1], group.name)[2]
    if is_behind(group['last-delivered-id']) or (least and padded(least) <= last) then return {3, group.name} end
  end
end
if is_behind(redis.call('HGET', KEYS[5], 'position')) then return {3, ''} end
local from, note = string.match(meta[3] or '', '^(%d+) (.*)$')
if from and note ~= ARGV[11] then return {4} end

local n, gone = #ARGV[5] / 8, {}
if n > 0 then
  local fields = {struct.unpack(string.rep('c8', n), ARGV[5])}
  fields[n + 1] = nil -- struct.unpack adds where it stopped
  local rows = redis.call('HMGET', KEYS[2], unpack(fields))
  for i = 1, n do
    if rows[i] == string.sub(ARGV[6], i * 10 - 9, i * 10) then gone[#gone + 1] = fields[i] end
  end
end
for i = 12, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then gone[#gone + 1] = ARGV[i] end
end
local following = redis.call('XRANGE', KEYS[1], '(' .. ARGV[2], '+', 'COUNT', 1)[1]

-- Commit. XTRIM comes first: it is not refused when memory is short, and what follows it in the script neither.
local removed
if following then
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', following[1])
else
  removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', 0)
end
if #gone > 0 then redis.call('HDEL', KEYS[2], unpack(gone)) end
redis.call('HINCRBY', KEYS[3], 'trimmed', removed)
redis.call('HINCRBY', KEYS[3], 'trimmed_bytes', ARGV[4])
redis.call('HSET', KEYS[3], 'trimmed_to', ARGV[2])
if not from then redis.call('HSET', KEYS[3], 'trim', (meta[1] or '0') .. ' ' .. ARGV[11]) end
return {0, removed, #gone}
