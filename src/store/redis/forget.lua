if record and record.word == 'cached' then
  redis.call('DEL', key)
  redis.pcall('PUBLISH', key, 'absent')
  return { 'done' }
end
return is()
