-- INCLUDE holder functions
-- ARGV 5, 6: the expected lease and revision; 7: `watched` where the caller has seen them
-- for the whole lease by its own clock; 8: the content of the new holder's record.
if not record then
  return is()
end
-- The same command, applied before its reply was lost.
if record.phase == 'claimed' and record.lease == claim.lease and record.step == 0 then
  return { 'done' }
end
local seen = record.lease == ARGV[5] and integer(record.rev) == ARGV[6]
-- By the server's clock, or by that of the caller for the expected version.
local expired = left_of(record) <= record.retention or (seen and ARGV[7] == 'watched')
-- Free for any request: nothing was executed, and no holder has it.
local free = record.word == 'released' or record.phase == 'claimed' and expired
if not free and record.fingerprint ~= claim.fingerprint then
  return { 'mismatch' }
end
if not seen then
  return is()
end
-- A lease belongs to one execution: it does not acquire a key that it released.
if record.word == 'released' and record.lease == claim.lease then
  return is()
end
if free then
  return lock(0, record.rev + 1, 'claimed', ARGV[8])
end
if record.word ~= 'locked' or not expired then
  return is()
end
-- A lost holder might have sent a request: what it wrote about it stays.
local value = write({
  word = 'indeterminate', phase = '-', lease = record.lease, rev = record.rev + 1,
  step = record.step, fingerprint = record.fingerprint, lease_ttl = record.lease_ttl,
  retention = record.retention,
}, content(), record.retention)
return { 'lost', value, record.retention }
