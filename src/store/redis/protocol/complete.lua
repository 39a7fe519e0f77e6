-- ARGV 5: the step; 6: how long it is kept; 7: the outcome; 8, where it matters: how
-- many bytes its body has that must be apart.
local step, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
if record and record.lease ~= claim.lease then
  return { 'not-holder' }
end
-- This very command, applied before its reply was lost.
if record and record.word == 'cached' then
  return { 'done' }
end
if ARGV[8] and not has_body(claim.lease, ARGV[8], ttl) then
  return { 'no-body' }
end
if not record then
  return settle('cached', step, 1, ARGV[7], ttl)
end
return settle('cached', math.max(step, record.step), record.rev + 1, ARGV[7], ttl)
