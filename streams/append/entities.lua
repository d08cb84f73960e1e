-- entities: where the events of each subject are, in rows of CHUNK places (entities.py).
-- Needs names, places. Reads ENTITIES; writes ENTITIES, VERSIONS: the caller has seen that they are hashes.
-- cost O(new events)
local CHUNK = 16
local NOWHERE = string.rep('\0', PLACE_BYTES) -- a place whose position is longer than packed ones are

-- Give the new events' places to their subjects, whose next events they are.
-- names, versions, events: of versions.lua. rows_of_ids: field, packed position, .. of the new events.
-- All rows are read by one command and written by one: each costs more than what is in it.
local function index_entities(names, versions, events, rows_of_ids)
  local fields, counts, rows = {}, {}, {}
  for i = 1, #names do
    local slot = versions[i] % CHUNK
    fields[i] = string.format('%s|%.0f', names[i], (versions[i] - slot) / CHUNK)
  end
  local held = redis.call('HMGET', ENTITIES, unpack(fields))
  for i = 1, #names do
    local subject, number, field = names[i], versions[i], fields[i]
    local row = string.sub(held[i] or '', 1, number % CHUNK * PLACE_BYTES)
    -- Events from before there was an index have no place.
    row = row .. string.rep(NOWHERE, number % CHUNK - #row / PLACE_BYTES)
    for _, k in ipairs(events[i]) do
      local slot, place = number % CHUNK, rows_of_ids[2 * k]
      if slot == 0 and row ~= '' then
        rows[#rows + 1], rows[#rows + 2] = field, row
        row, field = '', string.format('%s|%.0f', subject, number / CHUNK)
      end
      if #place ~= PLACE_BYTES then
        rows[#rows + 1], rows[#rows + 2] = string.format('%s|%.0f', field, slot), place
      end
      row, number = row .. (#place == PLACE_BYTES and place or NOWHERE), number + 1
    end
    rows[#rows + 1], rows[#rows + 2] = field, row
    counts[2 * i - 1], counts[2 * i] = subject, string.format('%.0f', number)
  end
  redis.call('HSET', VERSIONS, unpack(counts))
  redis.call('HSET', ENTITIES, unpack(rows))
end

