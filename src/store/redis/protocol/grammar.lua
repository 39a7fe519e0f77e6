-- A record's first line, matched as text by the rules of `record/codec.rs`: it ends
-- within 512 bytes, and what follows the known words may be anything. Nothing where
-- it is not such a line.
local function read_line(line)
  local word, phase, lease, rev, step, fingerprint, lease_ttl, retention, more = string.match(line,
    '^genesys%-once/FORMAT_VERSION (%l+) ([%l-]+) ([0-9a-f]+) (%d+) (%d+) ([0-9a-f]+) (%d+) (%d+)([^\n]*)\n')
  local states = {
    ['locked claimed'] = true, ['locked dispatched'] = true,
    ['cached -'] = true, ['indeterminate -'] = true,
  }
  -- 15 digits: below 2^53, where Lua's numbers are still exact integers. Whatever a
  -- released record says of its verdict, the key is free.
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

-- The time that a record lives on, and what the server said of it. A time that is
-- missing, or longer than any that was written, is not believed: whoever finds it
-- gives the record its own again, where the server takes writes.
local function left_of(record)
  local said = redis.call('PTTL', KEYS[1])
  local longest = record.retention
  if record.word == 'locked' then
    longest = longest + record.lease_ttl
  end
  if said == -1 or said > longest then
    redis.pcall('PEXPIRE', KEYS[1], integer(longest))
    return longest, said
  end
  return said, said
end

-- Where the body is that the record of a lease has apart: in the same slot.
local function body_of(lease)
  return 'genesys-once:{' .. KEYS[1] .. '}:' .. lease
end

