-- The usual case first: the record is, byte for byte, what this holder's acquire
-- wrote. Then its successor is known as well, and nothing has to be taken apart;
-- whatever else is there, the script goes on as if this had not been.
if ARGV[5] == '0' and redis.call('GETRANGE', KEYS[1], 0, 255) == 'genesys-once/1 locked '
  .. ARGV[1] .. ' 0 1 dispatched ' .. ARGV[4] .. ' ' .. ARGV[2] .. '\n' then
  local value = 'genesys-once/1 cached ' .. ARGV[1] .. ' 0 2 - ' .. ARGV[6] .. ' '
    .. ARGV[2] .. '\n' .. ARGV[7]
  redis.call('SET', KEYS[1], value, 'PX', ARGV[6])
  redis.pcall('PUBLISH', KEYS[1], 'cached')
  return { 'done' }
end

