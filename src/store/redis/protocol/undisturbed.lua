-- The usual case first: the record is, byte for byte, what this holder's acquire
-- wrote. Then its successor is known as well, and nothing has to be taken apart;
-- whatever else is there, the script goes on as if this had not been. Numbers as
-- text, since Redis prints each of Lua's by way of %.17g; the answer without a
-- table around it.
local argv, call = ARGV, redis.call
local acquired = 'genesys-once/FORMAT_VERSION locked dispatched ' .. argv[1] .. ' 1 0 ' .. argv[2] .. ' '
  .. argv[3] .. ' ' .. argv[4] .. '\n'
if argv[5] == '0' and not argv[8] and call('GETRANGE', KEYS[1], '0', #acquired - 1) == acquired then
  call('SET', KEYS[1], 'genesys-once/FORMAT_VERSION cached - ' .. argv[1] .. ' 2 0 ' .. argv[2] .. ' '
    .. argv[3] .. ' ' .. argv[6] .. '\n' .. argv[7], 'PX', argv[6])
  redis.pcall('PUBLISH', KEYS[1], 'cached')
  return 'done'
end

