-- versions: how many events each subject has, and whether that is what the caller has seen.
-- Needs names. Reads VERSIONS; writes nothing.  cost O(new events)

-- subjects: one per event of the batch. new: numbers of the new events.
-- returns touched: a list of {subject, version before, numbers of its new events, in order}, one per subject
-- raises where a version is no number
local function touch(subjects, new)
  local touched, of, names = {}, {}, {}
  for k = 1, #new do
    local subject = subjects[new[k]]
    local item = of[subject]
    if not item then
      item = {subject = subject, events = {}}
      of[subject], touched[#touched + 1], names[#names + 1] = item, item, subject
    end
    item.events[#item.events + 1] = new[k]
  end
  if #names > 0 then
    local held = redis.call('HMGET', VERSIONS, unpack(names))
    for i = 1, #touched do touched[i].version = tonumber(held[i] or 0) + 0 end
  end
  return touched
end

-- expected: subject -> the version it must have; a subject without new events is not asked.
-- returns nil, or {CONFLICT, subject, its version}
local function conflict(touched, expected)
  for i = 1, #touched do
    local wanted = expected[touched[i].subject]
    if wanted and wanted ~= touched[i].version then
      return {ANSWER.CONFLICT, touched[i].subject, string.format('%.0f', touched[i].version)}
    end
  end
end

