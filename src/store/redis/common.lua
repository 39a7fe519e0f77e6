-- What every script begins with: the record's first line, matched as text, and
-- the few ways to answer. The JSON behind the line is never read here, and an
-- unknown line ends the script before anything is written.
local key = KEYS[1]
local size = redis.call('STRLEN', key)
if size > MAX_RECORD_BYTES then
  return { 'too-large' }
end
local record
if size > 0 or redis.call('EXISTS', key) == 1 then
  local line = redis.call('GETRANGE', key, 0, 255)
  local word, lease, step, rev, phase, retention, fingerprint = string.match(line,
    '^genesys%-once/1 (%l+) ([0-9a-f]+) (%d+) (%d+) ([%l-]+) (%d+) ([0-9a-f]+)\n')
  local states = {
    ['locked claimed'] = true, ['locked dispatched'] = true,
    ['cached -'] = true, ['indeterminate -'] = true, ['released -'] = true,
  }
  -- 15 digits: below 2^53, where Lua's numbers are still exact integers.
  if not word or not states[word .. ' ' .. phase] or #lease ~= 32 or #fingerprint ~= 64
    or #step > 10 or tonumber(step) > 4294967295 or #rev > 15 or #retention > 15 then
    return { 'unreadable', line }
  end
  record = {
    word = word, lease = lease, step = tonumber(step), rev = tonumber(rev), phase = phase,
    retention = tonumber(retention), fingerprint = fingerprint,
    json = string.find(line, '\n', 1, true),
  }
end

-- Lua would write 1e+15.
local function integer(number)
  return string.format('%.0f', number)
end

-- Replaces the record and tells those who wait. Without the right to publish,
-- the write counts all the same: they poll besides.
local function write(new, content, ttl)
  local value = table.concat({
    'genesys-once/1', new.word, new.lease, integer(new.step), integer(new.rev), new.phase,
    integer(new.retention), new.fingerprint,
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

