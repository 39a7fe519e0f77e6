-- ARGV 1, 2: the lease and revision that were seen; 3: the revision after it;
-- 4: the new state; 5: how long it is kept; 6: its content.
if not record then
  return is()
end
local rev = integer(record.rev)
if record.word == 'indeterminate' and record.lease == ARGV[1] and rev == ARGV[2] then
  local ttl = tonumber(ARGV[5])
  write({
    word = ARGV[4], lease = record.lease, step = record.step, rev = record.rev + 1,
    phase = '-', retention = ttl, fingerprint = record.fingerprint,
  }, ARGV[6], ttl)
  return { 'done' }
end
-- This very command, applied before its reply was lost.
if record.word == ARGV[4] and record.lease == ARGV[1] and rev == ARGV[3] then
  return { 'done' }
end
return is()
