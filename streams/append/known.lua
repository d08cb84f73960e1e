-- known: which events of a batch are in the log already, or twice in the batch.
-- Needs names, places. Reads LOG, IDS; writes nothing.
-- The digest only finds the row: equality is decided on the event IDs, so a collision costs no event.
-- cost O(events); for each that has a row, a look at its entry
local function id_of(event)
  return string.match(event, '^{"type":"[^"]*","event_id":"([^"]*)"') or cjson.decode(event).event_id
end

local function event_at(position)
  local entry = redis.call('XRANGE', LOG, position, position)[1]
  if not entry then return nil end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'event' then return entry[2][i + 1] end
  end
end

-- fields: digest of every event; becomes 'event_id=..' where another event has the same. events: their JSON.
-- returns new         numbers (from 1) of the events that are to be added, in order
--         positions   number -> position, of those that the log has
--         twins       number -> number of the earlier event of the batch that it repeats
--         duplicates  numbers of those that are not added
-- or nil, {DANGLING, event_id, position}: IDS names an entry that the log no longer has
local function look_up(fields, events)
  local held = redis.call('HMGET', IDS, unpack(fields))
  local new, positions, twins, duplicates, planned = {}, {}, {}, {}, {}
  local count = 0 -- of new; # would search for it
  for i = 1, #events do
    local known = held[i] and unpacked(held[i])
    local twin = planned[fields[i]]
    if known or twin then
      local id = id_of(events[i])
      local other = twin and events[twin] or event_at(known)
      if not other then return nil, {DANGLING, id, known} end
      if id_of(other) ~= id then
        fields[i] = 'event_id=' .. id
        local row = redis.call('HGET', IDS, fields[i])
        known, twin = row and unpacked(row), planned[fields[i]]
      end
    end
    if twin then
      twins[i] = twin
    elseif known then
      positions[i] = known
    else
      count = count + 1
      planned[fields[i]], new[count] = i, i
    end
    if twin or known then duplicates[#duplicates + 1] = i end
  end
  return new, positions, twins, duplicates
end

