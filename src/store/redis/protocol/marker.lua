-- A marker: `MIN_VERSION ID STATE`, and words of later versions, which stay. ARGV 1: the
-- minimum version of writers, to which it is raised; 2: the id of a new marker; 3:
-- `refuse` marks another id than 4 as emptied, `accept` marks the loss as accepted and
-- returns the state before.
local value = redis.call('GET', KEYS[1]) or ''
local least, id, state, more = string.match(value, '^(%d+) (%x+) (%l+)(.*)$')
if not least or #least > 9 then
  least, id, state, more = '0', ARGV[2], 'new', ''
end
least = math.max(tonumber(least), tonumber(ARGV[1]))
local before = state
if ARGV[3] == 'accept' then
  state = 'accepted'
elseif ARGV[3] == 'refuse' and id ~= ARGV[4] and state == 'new' then
  state, before = 'emptied', 'emptied'
end
local new = string.format('%.0f', least) .. ' ' .. id .. ' ' .. state .. more
if new ~= value then
  redis.call('SET', KEYS[1], new)
end
return { least, id, before }
