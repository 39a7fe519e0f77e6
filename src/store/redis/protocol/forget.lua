-- ARGV 1: the lease of the operator's command; 2: the content of the remaining record,
-- which is only the record's name.
if record and record.word == 'released' and record.lease == ARGV[1] then
  return { 'done' }
end
if not record or record.word ~= 'cached' then
  return is()
end
redis.pcall('DEL', body_of(record.lease))
-- With the time to live of the outcome, so that no late command of its holder writes it
-- again.
local left = math.max(left_of(record), 1)
write({
  word = 'released', phase = '-', lease = ARGV[1], rev = record.rev + 1, step = record.step,
  fingerprint = record.fingerprint, lease_ttl = record.lease_ttl, retention = left,
}, ARGV[2], left)
return { 'done' }
