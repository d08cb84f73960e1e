-- budget: may the log grow by these events, as far as its slowest group is behind?
-- Needs names. Reads LOG, META, GROUPS, cursors; writes nothing.  cost O(1), near the bound O(groups)
local OVERHEAD = 128 -- bytes an event takes besides its JSON: its entry and its ids row; as in pressure.py
local UNBOUNDED = 2 ^ 53

-- budget: {events, bytes}, 0 for none: how far the log may be ahead. groups: names the caller knows; their
--         cursors are in KEYS.
-- new, size: number and bytes of the events to add
-- returns nil, and what META.clear is to be (nil: as it is): "budget events bytes", how far the log may grow
--         before anybody must be asked again. Groups only advance and new ones join at the end, so what fits
--         all of them now fits until then.
--         {FULL, group, events, bytes}  it is so far behind that these do not fit
--         {REGROUP, groups ..}          not the groups the caller knows
local function over_budget(budget, groups, new, size)
  local meta = redis.call('HMGET', META, 'trimmed', 'bytes', 'clear')
  local held = redis.call('XLEN', LOG) + (meta[1] or 0)
  local weight = (meta[2] or 0) + held * OVERHEAD
  local events, bytes = held + new, weight + size + new * OVERHEAD
  local clear = meta[3] or ''
  local of_events, of_bytes, safe_events, safe_bytes = string.match(clear, '^(%d+) (%d+) (%d+) (%d+)$')
  if tonumber(of_events) == budget.events and tonumber(of_bytes) == budget.bytes
    and events <= tonumber(safe_events) and bytes <= tonumber(safe_bytes) then return end

  local joined = #groups > 0 and redis.call('HMGET', GROUPS, unpack(groups)) or {}
  local unknown = redis.call('HLEN', GROUPS)
  for i = 1, #groups do unknown = unknown - (joined[i] and 1 or -1) end
  if unknown ~= 0 then return {REGROUP, unpack(redis.call('HKEYS', GROUPS))} end

  local most_events = budget.events > 0 and budget.events or UNBOUNDED
  local most_bytes = budget.bytes > 0 and budget.bytes or UNBOUNDED
  local least, least_weight, worst = held, weight, nil
  for i = 1, #groups do
    local from, from_bytes = string.match(joined[i], '^(%d+) (%d+)')
    local at = redis.call('HMGET', KEYS[KEYS_BEFORE_CURSORS + i], 'read', 'read_bytes')
    from = math.min(held, math.max(at[1] or 0, from))
    from_bytes = math.min(weight, math.max(at[2] or 0, from_bytes) + from * OVERHEAD)
    -- What alone exceeds a budget is let in when nothing is ahead, or it could never be appended.
    local over = from < held and (events - from > most_events or bytes - from_bytes > most_bytes)
    if over and (not worst or from < least) then
      worst = {FULL, groups[i], held - from, weight - from_bytes}
    end
    least, least_weight = math.min(least, from), math.min(least_weight, from_bytes)
  end
  if worst then return worst end
  clear = {budget.events, budget.bytes, least + most_events, least_weight + most_bytes}
  return nil, string.format('%.0f %.0f %.0f %.0f', unpack(clear))
end

