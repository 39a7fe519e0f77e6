-- The record and its time to live at one moment, or only its size where it is too large.
-- Not a transaction: a server that is out of memory refuses to queue even reads.
local size = redis.call('STRLEN', KEYS[1])
if size > MAX_RECORD_BYTES then
  return { size }
end
local value = redis.call('GET', KEYS[1])
local record = value and read_line(string.sub(value, 1, 512))
if not record then
  return { value, redis.call('PTTL', KEYS[1]) }
end
local _, pttl = left_of(record)
return { value, pttl }
