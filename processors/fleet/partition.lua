-- partition: where every group stands in one partition, from one instant.
-- KEYS[1] log     stream                     all share one {partition} hash tag
-- KEYS[2] meta    hash    trimmed, appended, trimmed_to
-- KEYS[3] groups  hash    the groups that joined (streams/join.lua)
-- KEYS[4..] six for each group that is asked for:
--         cursor    hash    position, the counts of KEPT, moved_ms, retired
--         lease     hash    owner, epoch, until, since
--         dead      hash    position -> why it was set aside
--         due       hash    lines of dead letters that may run again
--         attempts  hash    entries whose handler was begun
--         acked     hash    position, read, forgotten: of an app's
-- ARGV[1] whether to count what was ever added, raw entries too ('1'): XINFO STREAM is as dear as the rest together
--     [2] how many groups
-- returns {now_ms, {length, trimmed, appended, entries-added or -1, last position}, names that joined,
--          {cursor fields, lease fields, {set aside, due, begun}, acked fields, first position after,
--           {position, why, ..} of the first that were set aside and of the newest}, or an error, for each group}
-- Only reads, so a full server answers it too. A key of another type is said with its group and stops no other.
-- cost O(groups + entries that were set aside, up to LISTED_MAX of a group)
local LISTED_MAX = 512 -- of more, a sample stands for the first
local SHOWN_MAX = 3
local KEPT = {'position', 'read', 'applied', 'duplicates', 'skipped', 'dead', 'quarantined', 'fingerprint', 'moved_ms', 'retired'}
local LOG, META, GROUPS = KEYS[1], KEYS[2], KEYS[3]

local function padded(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  if not ms then return position end
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end

local last_entry = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
local last = last_entry and last_entry[1] or ''

-- The first position of the log after this one, or ''.
local function after(position)
  if position == last then return '' end
  local entry = redis.call('XRANGE', LOG, position == '' and '-' or '(' .. position, '+', 'COUNT', 1)[1]
  return entry and entry[1] or ''
end

-- {position, why, ..} of the first entries that were set aside, and of the newest.
local function shown_of(dead, count)
  local places = {}
  if count <= LISTED_MAX then
    places = redis.call('HKEYS', dead)
  else
    local sampled = redis.call('HSCAN', dead, 0, 'COUNT', 16)[2]
    for i = 1, #sampled, 2 do places[#places + 1] = sampled[i] end
  end
  table.sort(places, function(one, other) return padded(one) < padded(other) end)
  local shown = {}
  for i = 1, #places do
    if i <= SHOWN_MAX or i == #places then
      shown[#shown + 1] = places[i]
      shown[#shown + 1] = redis.call('HGET', dead, places[i]) or ''
    end
  end
  return shown
end

-- What the counts of its cursor give no reason to look at is not looked at: most groups cost two commands.
local function standing(first)
  local cursor = redis.call('HMGET', KEYS[first], unpack(KEPT))
  local lease = redis.call('HMGET', KEYS[first + 1], 'owner', 'epoch', 'until', 'since')
  local at, has_read, acked = cursor[1] or '', cursor[2] and cursor[2] ~= '0', {}
  if not has_read then
    acked = redis.call('HMGET', KEYS[first + 5], 'position', 'read', 'forgotten')
    at = acked[1] or at
  end
  local following, counts, shown = after(at), {0, 0, 0}, {}
  if (cursor[6] and cursor[6] ~= '0') or (cursor[7] and cursor[7] ~= '0') then
    counts[1], counts[2] = redis.call('HLEN', KEYS[first + 2]), redis.call('HLEN', KEYS[first + 3])
    shown = shown_of(KEYS[first + 2], counts[1])
  end
  if following ~= '' and not cursor[8] then counts[3] = redis.call('HLEN', KEYS[first + 4]) end
  return {cursor, lease, counts, acked, following, shown}
end

local function safely(first)
  local is_well, answer = pcall(standing, first)
  if is_well then return answer end
  for i = first, first + 5 do -- which of the keys it is
    if redis.call('TYPE', KEYS[i]).ok ~= 'hash' and redis.call('EXISTS', KEYS[i]) == 1 then
      return 'the key ' .. KEYS[i] .. ' is a ' .. redis.call('TYPE', KEYS[i]).ok .. ', and never from us'
    end
  end
  return 'it cannot be read: ' .. (type(answer) == 'table' and answer.err or tostring(answer))
end

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local counted, added = redis.call('HMGET', META, 'trimmed', 'appended', 'trimmed_to'), -1
if ARGV[1] == '1' and redis.call('EXISTS', LOG) == 1 then
  local facts = redis.call('XINFO', 'STREAM', LOG)
  for i = 1, #facts, 2 do
    if facts[i] == 'entries-added' then added = facts[i + 1] end
  end
end
local answer = {}
for i = 1, tonumber(ARGV[2]) do answer[i] = safely(4 + (i - 1) * 6) end
local ends = last ~= '' and last or counted[3] or ''
local log = {redis.call('XLEN', LOG), counted[1] or '0', counted[2] or '0', added, ends}
return {now, log, redis.call('HKEYS', GROUPS), answer}
