-- pass: a processor goes on behind what was trimmed before it handled it, or behind all that the log has, as a person decided.
-- After lines.lua. KEYS[1] cursor hash  [2] done hash  [3] attempts hash  [4] begun hash  [5] dead hash    as in step.lua
-- KEYS[6] meta  hash  trimmed, trimmed_bytes, trimmed_to, bytes    [7] log  stream    all share one {partition} tag
-- ARGV[1] '1': behind all that the log has; '0': behind what was trimmed
-- returns how many entries it passed that were not finished; 0 where nothing was trimmed unread
-- raises  WRONGTYPE before any write.  cost O(done + attempts)
local CURSOR, DONE, ATTEMPTS, BEGUN, DEAD, META, LOG = unpack(KEYS)
for _, key in ipairs({DONE, ATTEMPTS, BEGUN, DEAD}) do redis.call('HLEN', key) end
local meta = redis.call('HMGET', META, 'trimmed', 'trimmed_bytes', 'trimmed_to', 'bytes')
local at = redis.call('HMGET', CURSOR, 'position', 'read')
if not (at[1] and meta[3]) or padded(at[1]) >= padded(meta[3]) then return 0 end

local to, read, bytes = meta[3], tonumber(meta[1]), tonumber(meta[2] or 0)
if ARGV[1] == '1' then
  local last = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
  if last then to, read, bytes = last[1], read + redis.call('XLEN', LOG), tonumber(meta[4] or bytes) end
end
local finished = 0
for _, position in ipairs(redis.call('HKEYS', DONE)) do
  if padded(position) <= padded(to) then finished = finished + redis.call('HDEL', DONE, position) end
end
for _, key in ipairs({ATTEMPTS, BEGUN}) do
  for _, position in ipairs(redis.call('HKEYS', key)) do
    if padded(position) <= padded(to) and redis.call('HEXISTS', DEAD, position) == 0 then redis.call('HDEL', key, position) end
  end
end
local passed = read - tonumber(at[2] or 0) - finished
redis.call('HSET', CURSOR, 'position', to, 'read', read, 'read_bytes', bytes)
redis.call('HINCRBY', CURSOR, 'skipped', passed)
return passed
