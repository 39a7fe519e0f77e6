-- What every script begins with: the record's first line, matched as text, and
-- the few ways to answer. What stands behind the line is never read here, and an
-- unknown line ends the script before anything is written.
local key = KEYS[1]
local size = redis.call('STRLEN', key)
if size > MAX_RECORD_BYTES then
  return { 'too-large' }
end
local record
if size > 0 or redis.call('EXISTS', key) == 1 then
  local line = redis.call('GETRANGE', key, 0, 511)
  local word, phase, lease, rev, step, fingerprint, lease_ttl, retention, more = string.match(line,
    '^genesys%-once/2 (%l+) ([%l-]+) ([0-9a-f]+) (%d+) (%d+) ([0-9a-f]+) (%d+) (%d+)([^\n]*)\n')
  local states = {
    ['locked claimed'] = true, ['locked dispatched'] = true,
    ['cached -'] = true, ['indeterminate -'] = true,
    ['released -'] = true, ['released refused'] = true,
  }
  -- 15 digits: below 2^53, where Lua's numbers are still exact integers.
  if not word or not states[word .. ' ' .. phase] or #lease ~= 32 or #fingerprint ~= 64
    or #step > 15 or tonumber(step) > 4294967295 or #rev > 15 or #lease_ttl > 15
    or #retention > 15 or (more ~= '' and string.sub(more, 1, 1) ~= ' ') then
    return { 'unreadable', line }
  end
  record = {
    word = word, phase = phase, lease = lease, rev = tonumber(rev), step = tonumber(step),
    fingerprint = fingerprint, lease_ttl = tonumber(lease_ttl), retention = tonumber(retention),
    content = string.find(line, '\n', 1, true),
  }
end

-- Lua would write 1e+15.
local function integer(number)
  return string.format('%.0f', number)
end

-- What stands behind the first line.
local function content()
  return redis.call('GETRANGE', key, record.content, -1)
end

-- Replaces the record and tells those who wait. Without the right to publish,
-- the write counts all the same: they poll besides.
local function write(new, content, ttl)
  local value = table.concat({
    'genesys-once/2', new.word, new.phase, new.lease, integer(new.rev), integer(new.step),
    new.fingerprint, integer(new.lease_ttl), integer(new.retention),
  }, ' ') .. '\n' .. content
  redis.call('SET', key, value, 'PX', integer(ttl))
  redis.pcall('PUBLISH', key, new.word)
  return value
end

-- The record as it stands, with the time that it lives on.
local function is()
  if not record then
    return { 'is' }
  end
  return { 'is', redis.call('GET', key), redis.call('PTTL', key) }
end

