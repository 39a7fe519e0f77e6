-- ARGV 1, 2: the expected lease and revision; 3: the fingerprint of the request; 4: the
-- new state; 5: its lease; 6: its time to live; 7: its content; 8, if given: the bytes of
-- its separate body.
if not record or record.fingerprint ~= ARGV[3] then
  return is()
end
local rev = integer(record.rev)
if record.word == 'indeterminate' and record.lease == ARGV[1] and rev == ARGV[2] then
  local ttl = tonumber(ARGV[6])
  if ARGV[8] and not has_body(ARGV[5], ARGV[8], ttl) then
    return { 'no-body' }
  end
  write({
    word = ARGV[4], phase = '-', lease = ARGV[5], rev = record.rev + 1, step = record.step,
    fingerprint = record.fingerprint, lease_ttl = record.lease_ttl, retention = ttl,
  }, ARGV[7], ttl)
  return { 'done' }
end
-- The same command, applied before its reply was lost: an outcome has the resolver's
-- lease, a release the revision after the expected one.
if record.word == ARGV[4] and record.lease == ARGV[5]
  and (record.word == 'cached' or integer(record.rev - 1) == ARGV[2]) then
  return { 'done' }
end
return is()
