-- INCLUDE holder functions
-- ARGV 5: the step; 6: what was sent, and why its outcome is unknown.
local step = tonumber(ARGV[5])
if not record then
  return finish('indeterminate', step, 1, ARGV[6], claim.retention)
end
if record.lease ~= claim.lease then
  return { 'not-holder' }
end
if record.word == 'indeterminate' then
  return { 'done' }
end
if record.word ~= 'locked' then
  return { 'not-holder' }
end
if step > record.step then
  return finish('indeterminate', step, record.rev + 1, ARGV[6], record.retention)
end
return { 'stale-step' }
