-- keep: store the snapshot of an entity, unless a newer one is there. A snapshot is a cache: whoever drops it changes nothing.
-- KEYS[1] snapshots  hash    subject -> JSON: version, fingerprint, position, state        all share one {partition} hash tag
-- KEYS[2] versions   hash    subject -> number of its events
-- KEYS[3] entities   hash    subject|chunk -> packed positions of its events (streams/entities.py)
-- ARGV[1] head    msgpack map
--           subject
--           version      of the snapshot: how many of the subject's events it has folded, at least 1
--           fingerprint  of the fold
--           chunk, slot  (from 0) of the last event folded, in the index of entities
--           place_bytes  of a place in a row of the index
-- ARGV[2] place of the last event folded: its packed position, or as text where that exceeds place_bytes
-- ARGV[3] the snapshot as JSON
-- returns an ANSWER; nothing is written unless KEPT
-- raises  WRONGTYPE before any write.  cost O(1)
local ANSWER = {
  KEPT = 0,
  NEWER = 1,    -- one of this definition, as far or farther, is there
  UNKNOWN = 2,  -- this log has not these events (a fail-over)
}
local head, place = cmsgpack.unpack(ARGV[1]), ARGV[2]

local stored = redis.call('HGET', KEYS[1], head.subject) or ''
if tonumber(redis.call('HGET', KEYS[2], head.subject) or 0) < head.version then return ANSWER.UNKNOWN end

local field = string.format('%s|%.0f', head.subject, head.chunk)
local from = head.slot * head.place_bytes
local packed = string.sub(redis.call('HGET', KEYS[3], field) or '', from + 1, from + head.place_bytes)
if packed ~= place and redis.call('HGET', KEYS[3], string.format('%s|%.0f', field, head.slot)) ~= place then
  return ANSWER.UNKNOWN
end

local version, fingerprint = string.match(stored, '^{"version":(%d+),"fingerprint":"([^"]*)"')
if fingerprint == head.fingerprint and tonumber(version) >= head.version then return ANSWER.NEWER end
redis.call('HSET', KEYS[1], head.subject, ARGV[3])
return ANSWER.KEPT
