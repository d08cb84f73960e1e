-- lines: a part of scripts about dead letters. A letter's place in the zset of its partition is "line position", padded, so that
-- those of a line stand in the order of the log.
local function padded(position)
  local ms, seq = string.match(position, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local function place_of(line, position) return line .. ' ' .. padded(position) end

-- The position of a line's first dead letter, or ''.
local function first_of(zset, line)
  local first = redis.call('ZRANGEBYLEX', zset, '[' .. line .. ' ', '(' .. line .. '!', 'LIMIT', 0, 1)[1]
  if not first then return '' end
  local ms, seq = string.match(first, ' 0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. seq
end
