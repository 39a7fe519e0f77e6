-- ARGV 1: a version. The least version of a namespace's writers, raised to that.
local least = tonumber(redis.call('GET', KEYS[1])) or 0
if least < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
  return tonumber(ARGV[1])
end
return least
