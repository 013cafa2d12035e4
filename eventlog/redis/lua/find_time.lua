-- KEYS: stream, log. ARGV: log id, channel, time in microseconds.
-- Answers the first event stored at or after that time; one past the last if there is none.
local log = find_log(KEYS[2], ARGV[1])
if not log then return { 'GONE' } end
local time = tonumber(ARGV[3])
local low, high = 1, log.last + 1
while low < high do
  local middle = math.floor((low + high) / 2)
  local entry = redis.call('XRANGE', KEYS[1], whole(middle), '+', 'COUNT', 1)[1]
  if entry and tonumber(string.match(entry[1], '%d+$')) < time then
    low = number_of(entry[1]) + 1
  else
    high = middle
  end
end
local found = redis.call('XRANGE', KEYS[1], whole(low), '+', 'COUNT', 1)[1]
return { 'OK', found and number_of(found[1]) or log.last + 1 }
