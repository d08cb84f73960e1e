-- lease: look at, claim, keep or give back the leases of one partition's lanes.
-- KEYS[1..] lease  hash  owner, epoch, since and until: server ms, ms: how long it was given for     all share one {partition} tag
-- ARGV [1] host  [2] lease_ms  [3..] one verb per key: look, claim, keep, release
-- returns one {epoch, ms left, owner} per key; epoch is 0 unless the host holds the lease after the call
-- The epoch grows by one with every change of owner and never goes back: commit.lua refuses an older one (a
-- fencing token). A lease that would end later than it was given for (the clock stepped back, or a replica with a
-- slower one was promoted) is shortened by whoever looks first, and that is stored.
-- raises  WRONGTYPE when a key has another type, before any write.  cost O(keys)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease_ms = tonumber(ARGV[2])
local held = {}
for i = 1, #KEYS do held[i] = redis.call('HMGET', KEYS[i], 'owner', 'epoch', 'until', 'ms') end

-- A full server lets a script through that has begun to write, and HDEL of a field that is nowhere removes nothing: who owns what
-- does not change because memory is short.
local has_begun = false
local function put(key, ...)
  if not has_begun then redis.call('HDEL', key, '') end
  has_begun = true
  redis.call('HSET', key, ...)
end

local answers = {}
for i = 1, #KEYS do
  local verb = ARGV[i + 2]
  local owner, epoch, ends = held[i][1] or '', tonumber(held[i][2] or 0), tonumber(held[i][3] or 0)
  local longest = now + tonumber(held[i][4] or lease_ms)
  if ends > longest then
    ends = longest
    put(KEYS[i], 'until', string.format('%.0f', ends))
  end
  if verb == 'release' and owner == ARGV[1] then
    owner, ends = '', 0
    put(KEYS[i], 'owner', '', 'until', 0)
  elseif verb == 'claim' and owner ~= ARGV[1] and ends <= now then
    owner, epoch, ends = ARGV[1], epoch + 1, now + lease_ms
    local since, lapses = string.format('%.0f', now), string.format('%.0f', ends)
    put(KEYS[i], 'owner', owner, 'epoch', epoch, 'since', since, 'until', lapses, 'ms', ARGV[2])
  elseif (verb == 'claim' or verb == 'keep') and owner == ARGV[1] then
    ends = now + lease_ms
    put(KEYS[i], 'until', string.format('%.0f', ends), 'ms', ARGV[2])
  end
  answers[i] = {owner == ARGV[1] and epoch or 0, math.max(0, ends - now), owner}
end
return answers
