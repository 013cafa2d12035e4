-- Answers member, "owner:pid:handled:failed:retried" and how many events it has, of each. Those that
-- have ended lately come first, with pid 0.
local group, answer = find_group()
if not group then return answer end
if end_dead_members(group) then tell() end
local found = { 'OK' }
for _, one in ipairs(redis.call('LRANGE', group.keys.former, 0, -1)) do
  found[#found + 1], found[#found + 2] = string.match(one, '^(%d+):(.*)$')
  found[#found + 1] = 0
end
local all = redis.call('HGETALL', group.keys.members)
for i = 1, #all, 2 do
  for _, one in ipairs({ all[i], all[i + 1], #held_by(group, all[i]) }) do found[#found + 1] = one end
end
return found
