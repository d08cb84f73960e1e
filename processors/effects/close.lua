-- close: an attempt has ended without finishing its item: it failed, or it was ours to cancel.
-- KEYS[1] attempts  hash  position -> how often its handler was begun                          both share one {partition} hash tag
-- KEYS[2] begun     hash  position -> tokens of the attempts that have not ended (step.lua)
-- ARGV[1] position  [2] the attempt's token  [3] 1: it was no attempt, and is not counted; 0: it failed
-- returns 1, or 0 where the attempt is not open: it was closed before, or the item is finished; then nothing is written
-- No epoch is compared: the token names the attempt, and nothing but this attempt is touched, whoever owns the lane by now.
-- raises  WRONGTYPE before any write.  cost O(open attempts of the item)
local ATTEMPTS, BEGUN = unpack(KEYS)
local position, token = ARGV[1], ARGV[2]
redis.call('HLEN', ATTEMPTS)
local left, is_open = {}, false
for each in string.gmatch(redis.call('HGET', BEGUN, position) or '', '%S+') do
  if each == token then is_open = true else left[#left + 1] = each end
end
if not is_open then return 0 end
if ARGV[3] == '1' and redis.call('HINCRBY', ATTEMPTS, position, -1) <= 0 then redis.call('HDEL', ATTEMPTS, position) end
if #left == 0 then redis.call('HDEL', BEGUN, position) else redis.call('HSET', BEGUN, position, table.concat(left, ' ')) end
return 1
