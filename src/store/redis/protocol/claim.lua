-- The terms that every event of a holder carries.
local claim = {
  lease = ARGV[1], fingerprint = ARGV[2],
  lease_ttl = tonumber(ARGV[3]), retention = tonumber(ARGV[4]),
}

-- A record of this holder in `Locked`; what it has sent stands in `content`.
local function lock(step, rev, phase, content)
  write({
    word = 'locked', phase = phase, lease = claim.lease, rev = rev, step = step,
    fingerprint = claim.fingerprint, lease_ttl = claim.lease_ttl, retention = claim.retention,
  }, content, claim.lease_ttl + claim.retention)
  return { 'done' }
end

-- A record of this holder in any other state, kept for `ttl`.
local function settle(word, step, rev, content, ttl)
  write({
    word = word, phase = '-', lease = claim.lease, rev = rev, step = step,
    fingerprint = claim.fingerprint, lease_ttl = claim.lease_ttl, retention = ttl,
  }, content, ttl)
  return { 'done' }
end

-- The same record, its lease begun anew: at another revision, so that nobody who
-- watches it takes it for one that has lapsed. Nobody waits to be told of it.
local function prolong()
  put({
    word = 'locked', phase = record.phase, lease = record.lease, rev = record.rev + 1,
    step = record.step, fingerprint = record.fingerprint, lease_ttl = claim.lease_ttl,
    retention = record.retention,
  }, content(), claim.lease_ttl + record.retention)
  return { 'done' }
end

