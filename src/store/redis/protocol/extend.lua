-- INCLUDE holder functions
-- ARGV 5: the step of a holder in `Dispatched`, else empty; 6: what it has sent.
if not record then
  if ARGV[5] == '' then
    return { 'not-holder' }
  end
  return lock(tonumber(ARGV[5]), 1, 'dispatched', ARGV[6])
end
if record.word == 'locked' and record.lease == claim.lease then
  return renew_lease()
end
return { 'not-holder' }
