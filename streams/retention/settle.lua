-- settle: close the note of a trim, so that what it removed gets into the audit trail once, whoever is killed meanwhile.
-- KEYS[1] meta  hash  trim: the open note "trimmed-before note" (trim.lua); trimmed, trimmed_to
--                     closed: a closed note, "trimmed-before trimmed trimmed_to note", until it is in the audit trail
-- ARGV[1] the closed note that is in the audit trail by now, '' for none
-- returns the closed note that is to get there next, '' when there is none.  raises WRONGTYPE before any write.  cost O(1)
local META, audited = KEYS[1], ARGV[1]
local meta = redis.call('HMGET', META, 'closed', 'trim', 'trimmed', 'trimmed_to')
local closed, open, trimmed, trimmed_to = meta[1] or '', meta[2], meta[3], meta[4]
if closed ~= '' and closed ~= audited then return closed end
if closed ~= '' then redis.call('HDEL', META, 'closed') end
if not open then return '' end

local before, note = string.match(open, '^(%d+) (.*)$')
closed = string.format('%s %s %s %s', before, trimmed, trimmed_to, note)
redis.call('HDEL', META, 'trim')
redis.call('HSET', META, 'closed', closed)
return closed
