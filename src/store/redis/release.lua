-- ARGV 5: the step; 6: how long it is kept; 7: the verdict, or nothing.
local step, ttl, verdict = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
if not record then
  return settle('released', step, 1, verdict, ttl)
end
if record.word == 'released' then
  if record.lease == claim.lease and record.step == step then
    return { 'done' }
  end
  -- Who has no verdict keeps the one that is there.
  if verdict == '' then
    verdict = redis.call('GETRANGE', key, record.json, -1)
  end
  return settle('released', step, record.rev + 1, verdict, ttl)
end
if record.word == 'cached' or record.lease ~= claim.lease then
  return { 'not-holder' }
end
if step > record.step then
  return settle('released', step, record.rev + 1, verdict, ttl)
end
return { 'stale-step' }
