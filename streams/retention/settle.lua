-- settle: close the note of a trim, so that what it removed can be told to the audit trail once, whoever is killed meanwhile.
-- KEYS[1] meta  hash  trim: the open note "trimmed-before note" (trim.lua); trimmed, trimmed_to
--                     closed: a closed note, "trimmed-before trimmed trimmed_to note", until it is in the audit trail
-- ARGV    [1] the closed note that is in the audit trail by now, '' for none
-- returns the closed note to tell next, '' when there is none.  raises WRONGTYPE before any write.  cost O(1)
local meta = redis.call('HMGET', KEYS[1], 'closed', 'trim', 'trimmed', 'trimmed_to')
local closed = meta[1] or ''
if closed ~= '' and closed ~= ARGV[1] then return closed end
if closed ~= '' then redis.call('HDEL', KEYS[1], 'closed') end
if not meta[2] then return '' end

local from, note = string.match(meta[2], '^(%d+) (.*)$')
closed = string.format('%s %s %s %s', from, meta[3], meta[4], note)
redis.call('HDEL', KEYS[1], 'trim')
redis.call('HSET', KEYS[1], 'closed', closed)
return closed
