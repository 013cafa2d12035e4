-- KEYS: stream, log, consumers. ARGV: log id, channel. Applies retention, which goes by time too.
-- Answers the number of the first event stored, the last one ever stored, and the bytes.
local log = find_log(KEYS[2], ARGV[1])
if not log or redis.call('EXISTS', KEYS[1]) == 0 then return { 'GONE' } end
make_room(KEYS[1], KEYS[2], KEYS[3], log, 0)
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return { 'OK', oldest and number_of(oldest[1]) or log.last + 1, log.last, log.bytes }
