-- acknowledge: record how far a worker app has come in one partition, or refuse the owner of an older lease.
-- KEYS[1] acked  hash    position, read, epoch                      all share one {partition} hash tag
-- KEYS[2] lease  hash    owner, epoch: who may (streams/lease.lua)
-- KEYS[3] log    stream  the partition's events
-- ARGV    [1] group  [2] epoch of the caller's lease  [3] position, '' at the start  [4] entries up to and including it
-- returns 1 OK, 2 FENCED (a newer owner exists; nothing written)
-- All writes are absolute, so a repeat is harmless. The server's group follows for its tools; nothing reads by it.
-- raises  WRONGTYPE when a key has another type, before any write.  cost O(1)
redis.call('HLEN', KEYS[1])
local epoch = tonumber(redis.call('HGET', KEYS[2], 'epoch') or 0)
redis.call('XLEN', KEYS[3])
if epoch > tonumber(ARGV[2]) then return 2 end

redis.call('HSET', KEYS[1], 'position', ARGV[3], 'read', ARGV[4], 'epoch', ARGV[2])
local at = ARGV[3] == '' and '0' or ARGV[3]
redis.pcall('XGROUP', 'CREATE', KEYS[3], ARGV[1], at, 'MKSTREAM') -- BUSYGROUP where it exists
local set = redis.pcall('XGROUP', 'SETID', KEYS[3], ARGV[1], at, 'ENTRIESREAD', ARGV[4])
if set.err then redis.pcall('XGROUP', 'SETID', KEYS[3], ARGV[1], at) end -- before Redis 7
return 1
