-- acknowledge: record how far an app has come in one partition, or refuse the owner of an older lease.
-- KEYS[1] acked  hash    position, read, epoch; forgotten: nobody waits for the app until it acknowledges again
--                                            all share one {partition} hash tag
-- KEYS[2] lease  hash    owner, epoch: who may (streams/lease.lua)
-- KEYS[3] log    stream  the partition's events
-- ARGV[1] head   msgpack map
--           group
--           epoch     of the caller's lease
--           position  '' at the start
--           read      entries up to and including it
-- returns an ANSWER; all writes are absolute, so a repeat is harmless. The server's group follows for its tools; nothing reads by it.
-- raises  WRONGTYPE when a key has another type, before any write.  cost O(1)
local ANSWER = {
  OK = 1,
  FENCED = 2,  -- a newer owner exists; nothing written
}
local ACKED, LEASE, LOG = unpack(KEYS)
local head = cmsgpack.unpack(ARGV[1])
redis.call('HLEN', ACKED)
local epoch = tonumber(redis.call('HGET', LEASE, 'epoch') or 0)
redis.call('XLEN', LOG)
if epoch > head.epoch then return ANSWER.FENCED end

redis.call('HDEL', ACKED, 'forgotten')
redis.call('HSET', ACKED, 'position', head.position, 'read', head.read, 'epoch', head.epoch)
local at = head.position == '' and '0' or head.position
redis.pcall('XGROUP', 'CREATE', LOG, head.group, at, 'MKSTREAM') -- BUSYGROUP where it exists
local set = redis.pcall('XGROUP', 'SETID', LOG, head.group, at, 'ENTRIESREAD', head.read)
if set.err then redis.pcall('XGROUP', 'SETID', LOG, head.group, at) end -- before Redis 7
return ANSWER.OK
