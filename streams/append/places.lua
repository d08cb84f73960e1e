-- places: a position in 10 bytes, milliseconds (6) and sequence (4), big-endian; as text beyond them.
-- The form of index.py, in ids and entities.  cost O(1), without a call
local PLACE_BYTES = 10
local last_ms, packed_ms -- the entries of one call mostly share their millisecond

-- '1764000000000-3' -> 10 bytes, or the text itself
local function packed(position)
  local dash = string.find(position, '-', 1, true)
  local ms, seq = string.sub(position, 1, dash - 1), string.sub(position, dash + 1)
  if #ms > 14 or #seq > 9 then return position end
  if ms ~= last_ms then last_ms, packed_ms = ms, struct.pack('>I6', tonumber(ms)) end
  return packed_ms .. struct.pack('>I4', tonumber(seq))
end

-- what packed made -> the position
local function unpacked(place)
  if #place ~= PLACE_BYTES then return place end
  return string.format('%.0f-%.0f', struct.unpack('>I6I4', place))
end

