-- INCLUDE holder functions
-- ARGV 5: the step; 6: the time to live; 7: `refused` where there is a refusal, else `-`;
-- 8: the content.
local step, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
local function released(rev, phase, fingerprint, content)
  write({
    word = 'released', phase = phase, lease = claim.lease, rev = rev, step = step,
    fingerprint = fingerprint, lease_ttl = claim.lease_ttl, retention = ttl,
  }, content, ttl)
  return { 'done' }
end
if not record then
  return released(1, ARGV[7], claim.fingerprint, ARGV[8])
end
if record.word == 'released' then
  if record.lease == claim.lease and record.step == step then
    return { 'done' }
  end
  -- Never shortens the record of a forgotten outcome. An existing refusal stays where the
  -- event has none, since it is of its own request.
  ttl = math.max(ttl, (left_of(record)))
  if record.phase == 'refused' and ARGV[7] == '-' then
    return released(record.rev + 1, 'refused', record.fingerprint, content())
  end
  return released(record.rev + 1, ARGV[7], claim.fingerprint, ARGV[8])
end
if record.word == 'cached' or record.lease ~= claim.lease then
  return { 'not-holder' }
end
if step > record.step then
  return released(record.rev + 1, ARGV[7], claim.fingerprint, ARGV[8])
end
return { 'stale-step' }
