-- What every script begins with: the record's first line, and the few ways to
-- answer. What stands behind the line is never read here, and an unknown line ends
-- the script before anything is written.
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

-- What stands behind the first line.
local function content()
  return redis.call('GETRANGE', key, record.content, -1)
end

-- Replaces the record.
local function put(new, content, ttl)
  local value = table.concat({
    'genesys-once/FORMAT_VERSION', new.word, new.phase, new.lease, integer(new.rev), integer(new.step),
    new.fingerprint, integer(new.lease_ttl), integer(new.retention),
  }, ' ') .. '\n' .. content
  redis.call('SET', key, value, 'PX', integer(ttl))
  return value
end

-- Replaces the record and tells those who wait. Without the right to publish,
-- the write counts all the same: they poll besides.
local function write(new, content, ttl)
  local value = put(new, content, ttl)
  -- Of no bytes none is left. Not before the record is written: a script that has
  -- written is let through on a full server. Where the slot is on the move the body
  -- may be at another server, and expires there.
  if new.word == 'cached' and ARGV[8] == '0' then
    redis.pcall('DEL', body_of(new.lease))
  end
  redis.pcall('PUBLISH', key, new.word)
  return value
end

-- Whether the body of that length is there that the outcome of this lease is about to
-- have apart: then it lives as long as the outcome.
local function has_body(lease, length, ttl)
  local body = body_of(lease)
  if length == '0' then
    return true
  end
  if type(redis.pcall('STRLEN', body)) == 'table' then
    error({ err = 'TRYAGAIN the slot is on the move' })
  end
  local head = 'genesys-once/FORMAT_VERSION body ' .. key .. ' ' .. lease .. ' ' .. length .. '\n'
  return redis.call('STRLEN', body) == #head + tonumber(length)
    and redis.call('GETRANGE', body, 0, #head - 1) == head
    and redis.call('PEXPIRE', body, integer(ttl)) == 1
end

-- The record as it stands, with the time that it lives on.
local function is()
  if not record then
    return { 'is' }
  end
  local _, said = left_of(record)
  return { 'is', redis.call('GET', key), said }
end

