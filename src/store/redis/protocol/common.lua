-- Reads the record's first line, and defines how scripts write and answer. It never reads
-- the content after that line. An unknown line ends the script before any write.
local key = KEYS[1]
local size = redis.call('STRLEN', key)
if size > MAX_RECORD_BYTES then
  return { 'too-large' }
end
local record
if size > 0 or redis.call('EXISTS', key) == 1 then
  local line = redis.call('GETRANGE', key, 0, 511)
  record = read_line(line)
  if not record then
    return { 'unreadable', line }
  end
end

-- The content after the first line.
local function content()
  return redis.call('GETRANGE', key, record.content, -1)
end

-- Replaces the record.
local function put(new, content, ttl)
  local value = table.concat({
    'FORMAT_TAG', new.word, new.phase, new.lease, integer(new.rev), integer(new.step),
    new.fingerprint, integer(new.lease_ttl), integer(new.retention),
  }, ' ') .. '\n' .. content
  redis.call('SET', key, value, 'PX', integer(ttl))
  return value
end

-- Replaces the record and notifies the waiters. Without the right to publish the write
-- still counts: waiters also poll.
local function write(new, content, ttl)
  local value = put(new, content, ttl)
  -- An outcome without a body removes the separate body. Only after the write: a script
  -- that has written may go on on a full server. While the slot moves, the body might be
  -- on another server, and expires there.
  if new.word == 'cached' and ARGV[8] == '0' then
    redis.pcall('DEL', body_of(new.lease))
  end
  redis.pcall('PUBLISH', key, new.word)
  return value
end

-- Whether the separate body of this lease is complete and has that length: then its time
-- to live becomes that of the outcome.
local function has_body(lease, length, ttl)
  local body = body_of(lease)
  if length == '0' then
    return true
  end
  if type(redis.pcall('STRLEN', body)) == 'table' then
    error({ err = 'TRYAGAIN the slot is on the move' })
  end
  local head = 'FORMAT_TAG body ' .. key .. ' ' .. lease .. ' ' .. length .. '\n'
  return redis.call('STRLEN', body) == #head + tonumber(length)
    and redis.call('GETRANGE', body, 0, #head - 1) == head
    and redis.call('PEXPIRE', body, integer(ttl)) == 1
end

-- The current record, with its time to live.
local function is()
  if not record then
    return { 'is' }
  end
  local _, pttl = left_of(record)
  return { 'is', redis.call('GET', key), pttl }
end

