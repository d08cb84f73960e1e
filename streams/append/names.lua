-- names: of append.lua's keys and answers, for all of its parts.
-- appending.py has the same answers as AppendAnswer; a test compares the two.
local LOG, IDS, META, VERSIONS, ENTITIES, GROUPS = unpack(KEYS, 1, 6)
local KEYS_BEFORE_CURSORS = 6
local ANSWER = {OK = 0, CONFLICT = 1, DANGLING = 2, FULL = 3, REGROUP = 4, EARLY = 5}

