-- ARGV: ..., number, report.
local group, answer = find_group()
if not group then return answer end
local facts = redis.call('HGET', group.keys.exhausted, ARGV[4])
if facts then
  bury(group, ARGV[4], number_of(facts), ARGV[5])
  tell()
end
return { 'OK' }
