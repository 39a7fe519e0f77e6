-- The terms in every event of a holder.
local claim = {
  lease = ARGV[1], fingerprint = ARGV[2],
  lease_ttl = tonumber(ARGV[3]), retention = tonumber(ARGV[4]),
}

-- A record of this holder in `Locked`; `content` has what it has sent.
local function lock(step, rev, phase, content)
  write({
    word = 'locked', phase = phase, lease = claim.lease, rev = rev, step = step,
    fingerprint = claim.fingerprint, lease_ttl = claim.lease_ttl, retention = claim.retention,
  }, content, claim.lease_ttl + claim.retention)
  return { 'done' }
end

-- A record of this holder in any other state, with this time to live.
local function finish(word, step, rev, content, ttl)
  write({
    word = word, phase = '-', lease = claim.lease, rev = rev, step = step,
    fingerprint = claim.fingerprint, lease_ttl = claim.lease_ttl, retention = ttl,
  }, content, ttl)
  return { 'done' }
end

-- The same record with a new lease, at another revision, so that no watcher counts it as
-- expired. It needs no notification.
local function renew_lease()
  put({
    word = 'locked', phase = record.phase, lease = record.lease, rev = record.rev + 1,
    step = record.step, fingerprint = record.fingerprint, lease_ttl = claim.lease_ttl,
    retention = record.retention,
  }, content(), claim.lease_ttl + record.retention)
  return { 'done' }
end

