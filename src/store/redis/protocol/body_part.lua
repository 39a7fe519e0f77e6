-- ARGV 1, 2: the first line before this part and after it; 3: its offset; 4: the part.
-- Returns 0 where another part is expected.
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
  return 0
end
redis.call('SETRANGE', KEYS[1], ARGV[3], ARGV[4])
redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
return 1
