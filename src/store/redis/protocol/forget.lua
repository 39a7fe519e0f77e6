-- ARGV 1: the forgetter's own lease; 2: what stands behind the first line of what
-- is left: nothing but the record's name.
if record and record.word == 'released' and record.lease == ARGV[1] then
  return { 'done' }
end
if not record or record.word ~= 'cached' then
  return is()
end
redis.pcall('DEL', body_of(record.lease))
-- As long as the outcome would have lasted, so that no late command of its holder
-- writes it again.
local left = math.max(left_of(record), 1)
write({
  word = 'released', phase = '-', lease = ARGV[1], rev = record.rev + 1, step = record.step,
  fingerprint = record.fingerprint, lease_ttl = record.lease_ttl, retention = left,
}, ARGV[2], left)
return { 'done' }
