-- ARGV: ..., lease in microseconds, the members. Answers those that are members no more.
local group, answer = find_group()
if not group then return answer end
local gone = { 'OK' }
for i = 5, #ARGV do
  if seat_of(group, ARGV[i]) then
    redis.call('ZADD', group.keys.alive, whole(now_us() + ARGV[4]), ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
if end_dead_members(group) then tell() end
return gone
