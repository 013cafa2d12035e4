-- KEYS: stream, log, consumers, then those of the group of the consumer's name. ARGV: log id, channel,
-- consumer, position, whether it acknowledges ("1" or "0").
if not find_log(KEYS[2], ARGV[1]) then return { 'GONE' } end
local position = tonumber(ARGV[4])
local known = position_of(redis.call('HGET', KEYS[3], ARGV[3]))
if ARGV[5] == '0' or not known or position > known then
  redis.call('HSET', KEYS[3], ARGV[3], whole(position) .. ':' .. whole(now_us()))
end
return { 'OK' }
