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
--         acked     hash    position, read: of an app's
-- ARGV    the names of these groups, in the same order
-- returns {now_ms, {length, trimmed, appended, entries-added or -1, last position}, names that joined,
--          {name, last delivered, pending, lag or -1, first position after that, ..} of the server's groups,
--          {cursor fields, lease fields, {set aside, due, begun}, acked fields, first position after,
--           {position, why, ..} of the first that were set aside and of the newest, an error or ''} for each group}
-- Only reads, so a full server answers it too. A key of another type is said with its group and stops no other.
-- cost O(groups + entries that were set aside, up to LISTED_MAX of a group)
local LISTED_MAX = 512 -- of more, a sample stands for the first
local SHOWN_MAX = 3
local KEPT = {'position', 'read', 'applied', 'duplicates', 'skipped', 'dead', 'quarantined', 'fingerprint', 'moved_ms', 'retired'}
local LOG, META, GROUPS = KEYS[1], KEYS[2], KEYS[3]

local problem = ''
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    problem = select(2, ...) .. ': ' .. reply.err
    return nil
  end
  return reply
end

local function paired(flat)
  local pairs_of = {}
  for i = 1, #flat, 2 do pairs_of[flat[i]] = flat[i + 1] end
  return pairs_of
end

local function padded(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  if not ms then return position end
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end

local last_entry = (ask('XREVRANGE', LOG, '+', '-', 'COUNT', 1) or {})[1]
local last = last_entry and last_entry[1] or ''

-- The first position of the log after this one, or ''.
local function after(position)
  if position == last then return '' end
  local entry = (ask('XRANGE', LOG, position == '' and '-' or '(' .. position, '+', 'COUNT', 1) or {})[1]
  return entry and entry[1] or ''
end

-- {position, why, ..} of the first entries that were set aside, and of the newest.
local function shown_of(dead, count)
  local places = {}
  if count <= LISTED_MAX then
    places = ask('HKEYS', dead) or {}
  else
    local sampled = (ask('HSCAN', dead, 0, 'COUNT', 16) or {'', {}})[2]
    for i = 1, #sampled, 2 do places[#places + 1] = sampled[i] end
  end
  table.sort(places, function(one, other) return padded(one) < padded(other) end)
  local shown = {}
  for i = 1, #places do
    if i <= SHOWN_MAX or i == #places then
      shown[#shown + 1] = places[i]
      shown[#shown + 1] = ask('HGET', dead, places[i]) or ''
    end
  end
  return shown
end

-- What the counts of its cursor give no reason to look at is not looked at: most groups cost two commands.
local function standing(first)
  problem = ''
  local cursor = ask('HMGET', KEYS[first], unpack(KEPT)) or {}
  for i = 1, #KEPT do cursor[i] = cursor[i] or '' end
  local held = ask('HMGET', KEYS[first + 1], 'owner', 'epoch', 'until', 'since') or {}
  local at, has_read = cursor[1], cursor[2] ~= '' and cursor[2] ~= '0'
  local acknowledged = {}
  if not has_read then
    acknowledged = ask('HMGET', KEYS[first + 5], 'position', 'read') or {}
    at = acknowledged[1] or at
  end
  local following, counts, shown = after(at), {0, 0, 0}, {}
  if (tonumber(cursor[6]) or 0) + (tonumber(cursor[7]) or 0) > 0 then
    counts[1], counts[2] = ask('HLEN', KEYS[first + 2]) or 0, ask('HLEN', KEYS[first + 3]) or 0
    shown = shown_of(KEYS[first + 2], counts[1])
  end
  if following ~= '' and cursor[8] == '' then counts[3] = ask('HLEN', KEYS[first + 4]) or 0 end
  return {
    cursor, {held[1] or '', held[2] or '', held[3] or '', held[4] or ''}, counts,
    {acknowledged[1] or '', acknowledged[2] or ''}, following, shown, problem,
  }
end

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local counted = ask('HMGET', META, 'trimmed', 'appended', 'trimmed_to') or {}
local length, added = ask('XLEN', LOG) or 0, -1
local servers = {}
if length > 0 or last ~= '' or redis.call('EXISTS', LOG) == 1 then
  local facts = ask('XINFO', 'STREAM', LOG)
  if facts then added = paired(facts)['entries-added'] or -1 end
  local is_asked = {}
  for i = 1, #ARGV do is_asked[ARGV[i]] = true end
  for _, flat in ipairs(ask('XINFO', 'GROUPS', LOG) or {}) do
    local group = paired(flat)
    local delivered = group['last-delivered-id']
    servers[#servers + 1] = group['name']
    servers[#servers + 1] = delivered
    servers[#servers + 1] = group['pending']
    servers[#servers + 1] = group['lag'] or -1
    servers[#servers + 1] = is_asked[group['name']] and '' or after(delivered)
  end
end
local answer = {}
for i = 1, #ARGV do answer[i] = standing(4 + (i - 1) * 6) end
local log = {length, counted[1] or '0', counted[2] or '0', added, last ~= '' and last or counted[3] or ''}
return {now, log, ask('HKEYS', GROUPS) or {}, servers, answer}
