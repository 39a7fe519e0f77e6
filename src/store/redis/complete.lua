-- ARGV 5: the step; 6: how long it is kept; 7: the outcome.
local step, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
if not record then
  return settle('cached', step, 1, ARGV[7], ttl)
end
if record.lease ~= claim.lease then
  return { 'not-holder' }
end
-- This very command, applied before its reply was lost.
if record.word == 'cached' then
  return { 'done' }
end
return settle('cached', math.max(step, record.step), record.rev + 1, ARGV[7], ttl)
