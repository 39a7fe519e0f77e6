-- ARGV 1, 2: the lease and revision that were seen; 3: the fingerprint that is
-- meant; 4: the new state; 5: the lease that it is written under; 6: how long it
-- is kept; 7: its content; 8, where it matters: how many bytes its body has that must
-- be apart.
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
-- This very command, applied before its reply was lost: an outcome stands under
-- its resolver's lease, a release one revision above what was seen.
if record.word == ARGV[4] and record.lease == ARGV[5]
  and (record.word == 'cached' or integer(record.rev - 1) == ARGV[2]) then
  return { 'done' }
end
return is()
