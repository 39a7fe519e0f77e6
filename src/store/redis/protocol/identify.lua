-- A stamp that identifies these bytes, the record, and its time to live; for a record that
-- is too large its size and beginning instead.
local value = redis.call('GET', KEYS[1])
if not value then
  return {}
end
local left = redis.call('PTTL', KEYS[1])
local stamp = redis.sha1hex(value)
if #value > MAX_RECORD_BYTES then
  return { stamp, #value, string.sub(value, 1, 64) }
end
return { stamp, value, left }
