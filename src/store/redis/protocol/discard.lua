-- ARGV 1: the stamp of the bytes to remove, as identify.lua returns it.
local value = redis.call('GET', KEYS[1])
if not value then
  return 0
end
if redis.sha1hex(value) ~= ARGV[1] then
  return 0
end
local record = read_line(string.sub(value, 1, 512))
if record then
  redis.pcall('DEL', body_of(record.lease))
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', KEYS[1], 'discarded')
return 1
