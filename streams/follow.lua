-- follow (part): put a consumer group where a cursor is, so that every Redis tool shows place and lag
-- log_facts(log) -> how many entries it ever got (nil before 7.0), the last position it gave; nothing where there is no log
-- follow(log, group, position, read, added, last) -> whether there is such a group
--   position  of the last entry read, '0' before the first     read  how many entries the cursor has read
--   added, last  as log_facts said
-- From 7.0 the server is told how many entries come before that place (ENTRIESREAD): without it its lag is null after a SETID. At the
-- end of the log that is all it ever got, whatever was deleted by hand in between.  cost O(1)
local function log_facts(log)
  local facts, added, last = redis.pcall('XINFO', 'STREAM', log), nil, nil
  if facts.err then return end
  for i = 1, #facts, 2 do
    if facts[i] == 'entries-added' then added = facts[i + 1] end
    if facts[i] == 'last-generated-id' then last = facts[i + 1] end
  end
  return added, last
end

local function follow(log, group, position, read, added, last)
  if not last then return false end
  local done
  if added then
    done = redis.pcall('XGROUP', 'SETID', log, group, position, 'ENTRIESREAD', last == position and added or math.min(read, added))
  else
    done = redis.pcall('XGROUP', 'SETID', log, group, position)
  end
  return not done.err
end
