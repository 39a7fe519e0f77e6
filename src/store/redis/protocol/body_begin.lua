-- ARGV 1: how a body begins of which nothing is there yet; 2: how it begins when all
-- of it is there; 3: how many bytes it has then; 4: how long it is kept. Returns 2
-- where it is there already.
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[2] - 1) == ARGV[2]
  and redis.call('STRLEN', KEYS[1]) == tonumber(ARGV[3]) then
  return 2
end
-- All of its room at once: a string that grows takes more.
redis.call('DEL', KEYS[1])
redis.call('SETRANGE', KEYS[1], ARGV[3] - 1, '\0')
redis.call('SETRANGE', KEYS[1], 0, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
