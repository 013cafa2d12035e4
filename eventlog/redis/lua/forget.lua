-- KEYS: stream, log, consumers, the group of the consumer's name, the set of groups, states. ARGV: log id,
-- channel, consumer. The dead letters of a group stay until they are dropped.
if not find_log(KEYS[2], ARGV[1]) then return { 'GONE' } end
redis.call('HDEL', KEYS[3], ARGV[3])
redis.call('HDEL', KEYS[6], ARGV[3])
redis.call('SREM', KEYS[5], ARGV[3])
local keys = group_keys(KEYS[4])
redis.call('DEL', keys.base)
for _, suffix in ipairs(SUFFIXES) do
  if not KEPT[suffix] then redis.call('DEL', keys[suffix]) end
end
tell()
return { 'OK' }
