-- snapshot: several tables of one partition's view and the cursor they reflect, at one instant.
-- KEYS[1] cursor  hash    KEYS[2..] tables, hashes or sorted sets, and the table of states
-- ARGV[1] operations, a msgpack list of maps; key and states are indexes into KEYS, first and last into ARGV (field names):
--         {verb = 'all', key}          HGETALL, or member, score, .. of a sorted set
--         {verb = 'get', key, first, last}  the values of these fields
--         {verb = 'top', key, count, states}  {member, score, ..}, {their states}; count -1 is all
-- returns {cursor as HGETALL, one answer per operation}
-- Writes nothing.  cost O(what is read)
local CHUNK = 4000 -- unpack fails at about 8,000
local function rows(key, fields)
  local values = {}
  for i = 1, #fields, CHUNK do
    local part = redis.call('HMGET', KEYS[key], unpack(fields, i, math.min(i + CHUNK - 1, #fields)))
    for j = 1, #part do values[#values + 1] = part[j] end
  end
  return values
end

local verbs = {}
function verbs.all(operation)
  local key = KEYS[operation.key]
  if redis.call('TYPE', key).ok == 'zset' then return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
  return redis.call('HGETALL', key)
end
function verbs.get(operation)
  local fields = {}
  for i = operation.first or 0, operation.last or 0 do fields[#fields + 1] = ARGV[i] end
  return rows(operation.key, fields)
end
function verbs.top(operation)
  local count = operation.count or 0
  local last = count < 0 and -1 or count - 1
  local ranked = count == 0 and {} or redis.call('ZRANGE', KEYS[operation.key], 0, last, 'WITHSCORES') -- 0 -1 would be all
  local members = {}
  for i = 1, #ranked, 2 do members[#members + 1] = ranked[i] end
  return {ranked, rows(operation.states, members)}
end

local answers = {redis.call('HGETALL', KEYS[1])}
for _, operation in ipairs(cmsgpack.unpack(ARGV[1])) do answers[#answers + 1] = verbs[operation.verb](operation) end
return answers
