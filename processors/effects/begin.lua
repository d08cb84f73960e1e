-- begin: a processor that is new to a partition begins where its log does, or where the first entries are that it handles.
-- KEYS[1] cursor  hash    position, read, read_bytes, skipped (step.lua)                all share one {partition} hash tag
-- KEYS[2] meta    hash    trimmed, trimmed_bytes, trimmed_to (streams/retention/trim.lua), bytes (append.lua)
-- KEYS[3] log     stream  the partition's events
-- ARGV[1] ms of append time before which it handles nothing  [2] how many entries after that are looked through here, at most
-- returns the cursor as HGETALL, and trimmed_to, or false: counts that did not include what was trimmed, or what is passed over,
--         would call it behind for ever.
-- raises  WRONGTYPE before any write.  cost O(ARGV[2])
local CURSOR, META, LOG = unpack(KEYS)
local start = ARGV[1] .. '-0'
local meta = redis.call('HMGET', META, 'trimmed', 'trimmed_bytes', 'trimmed_to', 'bytes')
local length, at = redis.call('XLEN', LOG), redis.call('HGET', CURSOR, 'position')
local function put(position, read, bytes)
  redis.call('HSET', CURSOR, 'position', position, 'read', read, 'skipped', read, 'read_bytes', bytes)
end
if not at then
  local last = ARGV[1] ~= '0' and redis.call('XREVRANGE', LOG, '(' .. start, '-', 'COUNT', 1)[1]
  local after = last and redis.call('XRANGE', LOG, start, '+', 'COUNT', ARGV[2] + 1) or {}
  if last and #after <= tonumber(ARGV[2]) then
    local bytes = tonumber(meta[4] or 0)
    for i = 1, #after do bytes = bytes - #(after[i][2][2] or '') end
    put(last[1], length + tonumber(meta[1] or 0) - #after, math.max(0, bytes))
  elseif meta[1] then
    put(meta[3], meta[1], meta[2] or 0)
  end
end
return {redis.call('HGETALL', CURSOR), meta[3]}
