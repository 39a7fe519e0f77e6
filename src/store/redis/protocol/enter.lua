-- INCLUDE holder functions
-- ARGV 5: the step; 6: the phase; 7: what is sent in it.
local step, phase = tonumber(ARGV[5]), ARGV[6]
if not record or record.word ~= 'locked' or record.lease ~= claim.lease then
  return { 'not-holder' }
end
if step > record.step then
  return lock(step, record.rev + 1, phase, ARGV[7])
end
if step == record.step and phase == record.phase then
  return renew_lease()
end
return { 'stale-step' }
