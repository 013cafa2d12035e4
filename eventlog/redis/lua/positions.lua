-- KEYS: stream, log, consumers, states. ARGV: log id, channel.
-- Answers the two hashes, as they are at one moment.
if not find_log(KEYS[2], ARGV[1]) then return { 'GONE' } end
return { 'OK', redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]) }
