-- members: say that a host lives, and learn who does and what each can run.
-- KEYS[1] hosts    zset    host -> server ms until which it counts as living       all share the tag {fleet}
-- KEYS[2] cards    hash    host -> "lease_ms JSON": what it says of itself (members.py)
-- KEYS[3] changes  string  counts who came, went or said something new
-- ARGV    [1] host  [2] lease_ms: until it is forgotten; 0: it leaves now  [3] its card, '' where it is as before
--         [4] the changes the caller knows the cards of, -1 for none
-- returns {server ms, changes, 1 where the caller's card is not here, {host, card, ..} or {} where the caller knows them}
-- A mark further ahead than its host's own lease is what a clock that stepped back has left: it is shortened, once and for all.
-- raises  WRONGTYPE before any write.  cost O(log hosts), and O(hosts) after a change
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local HOSTS, CARDS, CHANGES = KEYS[1], KEYS[2], KEYS[3]
local host, lease_ms, card, known = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
redis.call('ZCARD', HOSTS)
local is_held = redis.call('HEXISTS', CARDS, host) == 1
local changes = tonumber(redis.call('GET', CHANGES) or 0)
local before = changes
redis.call('HDEL', CARDS, '') -- removes nothing: a full server lets a script through that has begun to write

if lease_ms == 0 then
  redis.call('ZREM', HOSTS, host)
  redis.call('HDEL', CARDS, host)
  changes = changes + 1
else
  if redis.call('ZADD', HOSTS, string.format('%.0f', now + lease_ms), host) == 1 then changes = changes + 1 end
  if card ~= '' then
    redis.call('HSET', CARDS, host, string.format('%.0f', lease_ms) .. ' ' .. card)
    is_held = true
    changes = changes + 1
  end
end

local gone = redis.call('ZRANGEBYSCORE', HOSTS, '-inf', string.format('%.0f', now))
for i = 1, #gone do
  redis.call('ZREM', HOSTS, gone[i])
  redis.call('HDEL', CARDS, gone[i])
  changes = changes + 1
end

local ahead = redis.call('ZRANGEBYSCORE', HOSTS, '(' .. string.format('%.0f', now + lease_ms), '+inf')
for i = 1, #ahead do
  local own = redis.call('HGET', CARDS, ahead[i])
  local longest = now + (tonumber(string.match(own or '', '^%d+')) or lease_ms)
  if tonumber(redis.call('ZSCORE', HOSTS, ahead[i])) > longest then
    redis.call('ZADD', HOSTS, string.format('%.0f', longest), ahead[i])
  end
end

if changes ~= before then redis.call('SET', CHANGES, string.format('%.0f', changes)) end
local cards = {}
if tostring(known) ~= string.format('%.0f', changes) and lease_ms > 0 then
  local rows = redis.call('HGETALL', CARDS)
  for i = 1, #rows, 2 do
    if redis.call('ZSCORE', HOSTS, rows[i]) then
      cards[#cards + 1] = rows[i]
      cards[#cards + 1] = rows[i + 1]
    end
  end
end
return {string.format('%.0f', now), string.format('%.0f', changes), is_held and 0 or 1, cards}
