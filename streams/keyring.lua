-- keyring: the pseudonyms and keys of creators; who has none yet gets those offered.
-- KEYS[1] names  hash  creator -> pseudonym                    the two share the hash tag {creators}
-- KEYS[2] keys   hash  pseudonym -> key; '' once it is erased
-- ARGV[1] head, a msgpack map
--         rewrite  whether to write again what is known, so that a WAIT behind this call vouches for it too
-- ARGV[2..] for each: creator, pseudonym and key to give it, both '' to give none
-- returns for each: pseudonym, key; '' '' where it has none, or was offered another's; a creator that is a
--         pseudonym itself is answered as it is
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(creators)
-- Always: every pseudonym in names has a key in keys.
local FIRST, EACH = 2, 3 -- the first creator in ARGV, and how many values one has
local NAMES, PSEUDONYMS = KEYS[1], KEYS[2]
local head = cmsgpack.unpack(ARGV[1])

-- The pseudonym and key that the creator has; nil where it has none.
local function known_of(creator)
  local key = redis.call('HGET', PSEUDONYMS, creator)
  if key then return creator, key end
  local pseudonym = redis.call('HGET', NAMES, creator)
  key = pseudonym and redis.call('HGET', PSEUDONYMS, pseudonym)
  if key then return pseudonym, key end
end

-- The same after it was given what is offered; nil where nothing is, or it is another's.
local function given(creator, pseudonym, key)
  if pseudonym == '' or redis.call('HEXISTS', PSEUDONYMS, pseudonym) == 1 then return end
  redis.call('HSET', PSEUDONYMS, pseudonym, key)
  redis.call('HSET', NAMES, creator, pseudonym)
  return pseudonym, key
end

redis.call('HLEN', NAMES)
redis.call('HLEN', PSEUDONYMS)
local answers = {}
for i = FIRST, #ARGV, EACH do
  local pseudonym, key = known_of(ARGV[i])
  if not pseudonym then pseudonym, key = given(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
  if pseudonym and head.rewrite then redis.call('HSET', PSEUDONYMS, pseudonym, key) end
  answers[#answers + 1], answers[#answers + 2] = pseudonym or '', key or ''
end
return answers
