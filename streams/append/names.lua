-- names: of append.lua's keys and answers, for all of its parts.
-- appending.py has the same answers as AppendAnswer; a test compares the two.
local LOG, IDS, META, VERSIONS, ENTITIES, GROUPS = unpack(KEYS, 1, 6)
local KEYS_BEFORE_CURSORS = 6
local OK, CONFLICT, DANGLING, FULL, REGROUP, EARLY = 0, 1, 2, 3, 4, 5

