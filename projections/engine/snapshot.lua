-- snapshot: several tables of one partition's view and the cursor they reflect, at one instant.
-- KEYS[1] cursor  hash    KEYS[2..] tables, hashes or sorted sets, and the table of states
-- ARGV    one operation per line of ARGV[1]:  "all key"  "get key first last"  "top key count states"  "size key"
--         key and states are indexes into KEYS, first and last indexes into ARGV (field names); count -1 is all
-- returns {cursor as HGETALL, one answer per operation}:
--         all  HGETALL, or member, score, .. of a sorted set     get  values     size  HLEN or ZCARD
--         top  {member, score, ..}, {their states}
-- Writes nothing.  cost O(what is read)
local answers = {redis.call('HGETALL', KEYS[1])}
local function rows(key, fields)
  local values = {}
  for i = 1, #fields, 4000 do
    local part = redis.call('HMGET', KEYS[key], unpack(fields, i, math.min(i + 3999, #fields)))
    for j = 1, #part do values[#values + 1] = part[j] end
  end
  return values
end
for line in string.gmatch(ARGV[1], '[^\n]+') do
  local verb, a, b, c = string.match(line, '^(%a+) (%d+) ?(-?%d*) ?(%d*)$')
  a = tonumber(a)
  local kind = redis.call('TYPE', KEYS[a]).ok
  if verb == 'all' then
    if kind == 'zset' then
      answers[#answers + 1] = redis.call('ZRANGE', KEYS[a], 0, -1, 'WITHSCORES')
    else
      answers[#answers + 1] = redis.call('HGETALL', KEYS[a])
    end
  elseif verb == 'size' then
    answers[#answers + 1] = redis.call(kind == 'zset' and 'ZCARD' or 'HLEN', KEYS[a])
  elseif verb == 'get' then
    local fields = {}
    for i = tonumber(b), tonumber(c) do fields[#fields + 1] = ARGV[i] end
    answers[#answers + 1] = rows(a, fields)
  else
    local count = tonumber(b)
    local last = count < 0 and -1 or count - 1
    local ranked = count == 0 and {} or redis.call('ZRANGE', KEYS[a], 0, last, 'WITHSCORES') -- 0 -1 would be all
    local members = {}
    for i = 1, #ranked, 2 do members[#members + 1] = ranked[i] end
    answers[#answers + 1] = {ranked, rows(tonumber(c), members)}
  end
end
return answers
