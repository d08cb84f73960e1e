-- item: the part of begin, done and park after step: whether the log has the item and nobody else finished it.
-- ARGV[2] its crc32, as it was read  [3] its letter, as it was read
local function crc_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'crc32' then return fields[i + 1] end
  end
end
local position, line, letter = head.position, head.line, ARGV[3]
local entry = redis.call('XRANGE', LOG, position, position)[1]
if not entry or (head.is_compared and crc_of(entry[2]) ~= ARGV[2]) then return {ANSWER.GAP} end

local first, is_due = first_of(LINE, line), redis.call('HEXISTS', DUE, line) == 1
local is_stale = not head.is_letter and is_finished(position)
if head.is_letter then
  is_stale = not (is_due and first == position) or redis.call('HGET', DEAD, position) ~= letter
end
if is_stale then return {ANSWER.STALE, is_due and first or ''} end

local function keep(text)
  redis.call('HSET', DEAD, position, text)
  redis.call('ZADD', LINE, 0, place_of(line, position))
end
