-- entity: what is known of one subject at one instant, so that whoever decides on it reads little.
-- KEYS[1] versions   hash    subject -> number of its events                    all share one {partition} hash tag
-- KEYS[2] entities   hash    subject|chunk -> packed positions of its events (streams/entities.py)
-- KEYS[3] cursor     hash    position, fingerprint: of the view
-- KEYS[4] states     hash    subject -> JSON of its state: of the view
-- KEYS[5] snapshots  hash    subject -> JSON: version, fingerprint, position, state (keep.lua)
-- KEYS[6] log        stream  the partition's events
-- KEYS[7] meta       hash    appended, trimmed
-- ARGV    [1] subject  [2] places a row has  [3] how many of the last rows are wanted
-- returns {version, 1 where append.lua made every entry of the log, position of the log's last entry ever,
--          the view's position, fingerprint and state, the snapshot, number of the first row, rows ..}, '' for what is not there
-- Writes nothing.  raises WRONGTYPE.  cost O(rows)
local version = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
local meta = redis.call('HMGET', KEYS[7], 'appended', 'trimmed')
local added, last = 0, '0-0'
if redis.call('EXISTS', KEYS[6]) == 1 then
  added = redis.call('XLEN', KEYS[6]) + (meta[2] or 0)
  local facts = redis.call('XINFO', 'STREAM', KEYS[6])
  for i = 1, #facts, 2 do
    if facts[i] == 'entries-added' then added = facts[i + 1] end -- 7.0 on
    if facts[i] == 'last-generated-id' then last = facts[i + 1] end
  end
end
local at = redis.call('HMGET', KEYS[3], 'position', 'fingerprint')
local state, snapshot = redis.call('HGET', KEYS[4], ARGV[1]), redis.call('HGET', KEYS[5], ARGV[1])
local chunks = math.ceil(version / ARGV[2])
local first = math.max(0, chunks - ARGV[3])
local answer = {version, added == tonumber(meta[1] or 0) and 1 or 0, last, at[1] or '', at[2] or '', state or '', snapshot or '', first}
for chunk = first, chunks - 1 do
  answer[#answer + 1] = redis.call('HGET', KEYS[2], string.format('%s|%.0f', ARGV[1], chunk)) or ''
end
return answer
