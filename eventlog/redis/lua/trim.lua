-- KEYS: stream, log. ARGV: log id, channel, number. Deletes a thousand of the events before the number.
-- Answers how many it deleted.
local log = find_log(KEYS[2], ARGV[1])
if not log then return { 'GONE' } end
local page = redis.call('XRANGE', KEYS[1], '-', whole(tonumber(ARGV[3]) - 1), 'COUNT', 1000)
if #page > 0 then
  local bytes = log.bytes
  for _, entry in ipairs(page) do bytes = bytes - #entry[2][2] end
  redis.call('XTRIM', KEYS[1], 'MINID', '=', whole(number_of(page[#page][1]) + 1))
  redis.call('HSET', KEYS[2], 'bytes', whole(bytes))
end
return { 'OK', #page }
