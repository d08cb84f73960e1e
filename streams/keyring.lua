-- keyring: the pseudonyms and keys of creators; who has none yet gets those offered.
-- KEYS[1] names  hash  creator -> pseudonym                    the two share the hash tag {creators}
-- KEYS[2] keys   hash  pseudonym -> key; '' once it is erased
-- ARGV    [1] '1' to write again what is known, so that a WAIT behind this call vouches for it too
--         [2..] for each: creator, pseudonym and key to give it, both '' to give none
-- returns for each: pseudonym, key; '' '' where it has none, or was offered another's; a creator that is a pseudonym itself is answered as it is
-- raises  WRONGTYPE when a key has another type, OOM; both before any write.  cost O(creators)
-- Always: every pseudonym in names has a key in keys.
redis.call('HLEN', KEYS[1])
redis.call('HLEN', KEYS[2])
local found = {}
for i = 2, #ARGV, 3 do
  local creator, pseudonym = ARGV[i], ARGV[i + 1]
  local known = redis.call('HGET', KEYS[2], creator)
  if known then
    pseudonym = creator
  else
    local name = redis.call('HGET', KEYS[1], creator)
    known = name and redis.call('HGET', KEYS[2], name) or nil
    if known then
      pseudonym = name
    elseif pseudonym ~= '' and redis.call('HEXISTS', KEYS[2], pseudonym) == 0 then
      known = ARGV[i + 2]
      redis.call('HSET', KEYS[2], pseudonym, known)
      redis.call('HSET', KEYS[1], creator, pseudonym)
    end
  end
  if known and ARGV[1] == '1' then redis.call('HSET', KEYS[2], pseudonym, known) end
  found[#found + 1], found[#found + 2] = known and pseudonym or '', known or ''
end
return found
