-- ARGV: ..., member, owner, pid, lease in microseconds.
local group, answer = find_group()
if not group then return answer end
redis.call('HSET', group.keys.members, ARGV[4], ARGV[5] .. ':' .. ARGV[6] .. ':0:0:0')
redis.call('ZADD', group.keys.alive, whole(now_us() + ARGV[7]), ARGV[4])
tell()
return { 'OK' }
