-- ARGV: ..., member, whether its deliveries have failed ("1" or "0").
local group, answer = find_group()
if not group then return answer end
if end_member(group, ARGV[4], ARGV[5] == '1') then tell() end
return { 'OK' }
