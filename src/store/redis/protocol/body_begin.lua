-- ARGV 1: the first line of an empty body; 2: that of a complete one; 3: the bytes of the
-- complete one; 4: the time to live. Returns 2 where the body is already complete.
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[2] - 1) == ARGV[2]
  and redis.call('STRLEN', KEYS[1]) == tonumber(ARGV[3]) then
  return 2
end
-- Allocated at once: a string that grows takes more memory.
redis.call('DEL', KEYS[1])
redis.call('SETRANGE', KEYS[1], ARGV[3] - 1, '\0')
redis.call('SETRANGE', KEYS[1], 0, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
