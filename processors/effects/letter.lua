-- letter: the part that retry and discard begin with: what a person decides about a dead letter, with its audit event, or nothing.
-- KEYS[1] cursor  [2] attempts  [3] dead  [4] line  [5] due  [6] outbox  [7] begun    as in step.lua; all share one {partition} tag
-- ARGV[1] head    msgpack map
--           position, line   of the letter
--           event_id         of the audit event
-- ARGV[2] the letter as it was read  [3] JSON of the audit event
-- returns {an ANSWER, position of the line's first letter, or ''}; nothing is written but with OK
-- raises  WRONGTYPE before any write.  cost O(log letters)
local ANSWER = {
  OK = 0,
  CHANGED = 1,  -- the letter is not what was read
  BEHIND = 2,   -- retry: that letter is before it in its line
  DUE = 3,      -- retry: its line runs already
}
local CURSOR, ATTEMPTS, DEAD, LINE, DUE, OUTBOX, BEGUN = unpack(KEYS)
local head = cmsgpack.unpack(ARGV[1])
local position, line = head.position, head.line
for _, key in ipairs({CURSOR, ATTEMPTS, DEAD, DUE, OUTBOX, BEGUN}) do redis.call('HLEN', key) end
redis.call('ZCARD', LINE)
if redis.call('HGET', DEAD, position) ~= ARGV[2] then return {ANSWER.CHANGED, ''} end
local first = first_of(LINE, line)
