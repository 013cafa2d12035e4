-- ARGV: ..., number. Answers 1 if everything up to it is done, or dead.
local group, answer = find_group()
if not group then return answer end
look_for_deleted(group)
local has_again = redis.call('SCARD', group.keys.again) > 0
return { 'OK', group.position >= tonumber(ARGV[4]) and not has_again and 1 or 0 }
