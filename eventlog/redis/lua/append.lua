-- KEYS: stream, log, consumers, producer. ARGV: log id, channel, the batch's number, the number that
-- the last event must have (or nothing), then the records.
-- Answers the number of the first event; EARLY if a batch of a smaller number is not stored; OTHER and
-- the last number if that is another one.
local REMEMBERED, FORGET_MS = 64, 24 * 60 * 60 * 1000
local log = find_log(KEYS[2], ARGV[1])
if not log then return { 'GONE' } end
local batch = tonumber(ARGV[3])
local latest = redis.call('LINDEX', KEYS[4], -1)
local known = latest and number_of(latest) or 0
if batch <= known then
  for _, one in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do
    if number_of(one) == batch then return { 'OK', tonumber(string.match(one, '%d+$')) } end
  end
  return { 'FORGOTTEN' }
end
if batch > known + 1 then return { 'EARLY' } end
if ARGV[4] ~= '' and tonumber(ARGV[4]) ~= log.last then return { 'OTHER', whole(log.last) } end
local first, answer = store(KEYS[1], KEYS[2], KEYS[3], log, { unpack(ARGV, 5) })
if not first then return answer end
redis.call('RPUSH', KEYS[4], ARGV[3] .. ':' .. whole(first))
if batch % REMEMBERED == 1 then
  redis.call('LTRIM', KEYS[4], -REMEMBERED, -1)
  redis.call('PEXPIRE', KEYS[4], FORGET_MS)
end
redis.call('PUBLISH', ARGV[2], whole(log.last))
return { 'OK', first }
