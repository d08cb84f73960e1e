-- entity: what is known of one subject at one instant, so that whoever decides on it reads little.
-- KEYS[1] versions   hash    subject -> number of its events                    all share one {partition} hash tag
-- KEYS[2] entities   hash    subject|chunk -> packed positions of its events (streams/entities.py)
-- KEYS[3] cursor     hash    position, fingerprint, dead: of the view
-- KEYS[4] states     hash    subject -> JSON of its state: of the view
-- KEYS[5] snapshots  hash    subject -> JSON: version, fingerprint, position, state (keep.lua)
-- KEYS[6] log        stream  the partition's events
-- KEYS[7] meta       hash    appended, trimmed
-- ARGV[1] head    msgpack map
--           subject
--           row_places  places a row of the index has
--           rows_max    how many of the last rows are wanted
-- returns {version, is_pure: 1 where append.lua made every entry of the log, last: position of the log's last entry ever,
--          cursor, fingerprint, dead, state: the view's, snapshot, number of the first row, rows ..}, '' for what is not there
-- Writes nothing.  raises WRONGTYPE.  cost O(rows)
local head = cmsgpack.unpack(ARGV[1])

-- How many entries the log ever got, and the position of the last of them. Before 7.0 the first is what is there and what was trimmed.
local function ever(trimmed)
  local added, last = 0, '0-0'
  if redis.call('EXISTS', KEYS[6]) == 0 then return added, last end
  added = redis.call('XLEN', KEYS[6]) + trimmed
  local facts = redis.call('XINFO', 'STREAM', KEYS[6])
  for i = 1, #facts, 2 do
    if facts[i] == 'entries-added' then added = facts[i + 1] end
    if facts[i] == 'last-generated-id' then last = facts[i + 1] end
  end
  return added, last
end

local version = tonumber(redis.call('HGET', KEYS[1], head.subject) or 0)
local meta = redis.call('HMGET', KEYS[7], 'appended', 'trimmed')
local added, last = ever(tonumber(meta[2] or 0))
local is_pure = added == tonumber(meta[1] or 0) and 1 or 0
local view = redis.call('HMGET', KEYS[3], 'position', 'fingerprint', 'dead')
local state, snapshot = redis.call('HGET', KEYS[4], head.subject), redis.call('HGET', KEYS[5], head.subject)

local chunks = math.ceil(version / head.row_places)
local first = math.max(0, chunks - head.rows_max)
local answer = {version, is_pure, last, view[1] or '', view[2] or '', view[3] or '0', state or '', snapshot or '', first}
for chunk = first, chunks - 1 do
  answer[#answer + 1] = redis.call('HGET', KEYS[2], string.format('%s|%.0f', head.subject, chunk)) or ''
end
return answer
