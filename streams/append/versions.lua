-- versions: how many events each subject has, and whether that is what the caller has seen.
-- Needs names. Reads VERSIONS; writes nothing.  cost O(new events)

-- subjects: one per event of the batch. new: numbers of the new events.
-- returns names, versions, events, of the subjects with new events: subject, its version before, and which
--         of the new events (from 1) are its own, in order
-- raises  where a version is no number
local function touch(subjects, new)
  local names, events, of, count = {}, {}, {}, 0
  for k = 1, #new do
    local subject = subjects[new[k]]
    local i = of[subject]
    if not i then
      i, count = count + 1, count + 1
      of[subject], names[i], events[i] = i, subject, {k}
    else
      table.insert(events[i], k)
    end
  end
  if count == 0 then return names, {}, events end
  local versions = redis.call('HMGET', VERSIONS, unpack(names))
  for i = 1, count do versions[i] = tonumber(versions[i] or 0) + 0 end
  return names, versions, events
end

-- expected: subject -> the version it must have; a subject without new events is not asked.
-- returns nil, or {CONFLICT, subject, its version}
local function conflict(names, versions, expected)
  for i = 1, #names do
    local wanted = expected[names[i]]
    if wanted and wanted ~= versions[i] then
      return {CONFLICT, names[i], string.format('%.0f', versions[i])}
    end
  end
end

