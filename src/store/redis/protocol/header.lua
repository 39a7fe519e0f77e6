-- Reads a record's first line by the rules of `record/codec.rs`: it ends within 512 bytes,
-- and any text may follow the known words. Returns nil for another line.
local function read_line(line)
  local word, phase, lease, rev, step, fingerprint, lease_ttl, retention, more = string.match(line,
    '^FORMAT_PATTERN (%l+) ([%l-]+) ([0-9a-f]+) (%d+) (%d+) ([0-9a-f]+) (%d+) (%d+)([^\n]*)\n')
  local states = {
    ['locked claimed'] = true, ['locked dispatched'] = true,
    ['cached -'] = true, ['indeterminate -'] = true,
  }
  -- 15 digits: below 2^53, up to which Lua's numbers are exact integers. A released
  -- record is free, whatever its refusal.
  if not word or not (word == 'released' or states[word .. ' ' .. phase])
    or #lease ~= 32 or #fingerprint ~= 64
    or #step > 15 or tonumber(step) > 4294967295 or #rev > 15 or #lease_ttl > 15
    or #retention > 15 or (more ~= '' and string.sub(more, 1, 1) ~= ' ') then
    return nil
  end
  return {
    word = word, phase = phase, lease = lease, rev = tonumber(rev), step = tonumber(step),
    fingerprint = fingerprint, lease_ttl = tonumber(lease_ttl), retention = tonumber(retention),
    content = string.find(line, '\n', 1, true),
  }
end

-- Lua would write 1e+15.
local function integer(number)
  return string.format('%.0f', number)
end

-- The time to live of a record, and the server's PTTL. A PTTL that is missing, or longer
-- than any that this crate writes, is replaced by the record's own, if the server accepts
-- writes.
local function left_of(record)
  local pttl = redis.call('PTTL', KEYS[1])
  local longest = record.retention
  if record.word == 'locked' then
    longest = longest + record.lease_ttl
  end
  if pttl == -1 or pttl > longest then
    redis.pcall('PEXPIRE', KEYS[1], integer(longest))
    return longest, pttl
  end
  return pttl, pttl
end

-- The key of the separate body of a lease, in the same slot.
local function body_of(lease)
  return 'genesys-once:{' .. KEYS[1] .. '}:' .. lease
end

