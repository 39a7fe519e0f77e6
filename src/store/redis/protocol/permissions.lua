-- Runs every command of the other scripts on an absent key without subscribers, so that
-- nothing changes. Returns the commands that the user may not run.
local key, missing = KEYS[1], {}
local signs = { 'NOPERM', 'ACL failure', 'user executing the script', 'Unknown Redis command' }
local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    for _, sign in ipairs(signs) do
      if string.find(reply.err, sign, 1, true) then
        missing[#missing + 1] = command
        return
      end
    end
  end
end
try('GET', key)
try('GETRANGE', key, '0', '0')
try('STRLEN', key)
try('EXISTS', key)
try('PTTL', key)
try('DEL', key)
try('PEXPIRE', key, '1')
try('SETRANGE', key, '0', '')
try('SET', key, '', 'XX')
try('PUBLISH', key, '')
return missing
