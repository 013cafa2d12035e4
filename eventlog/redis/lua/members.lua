-- Answers member, "owner:pid:handled:failed:retried" and how many events it has, of each.
local group, answer = find_group()
if not group then return answer end
if end_dead_members(group) then tell() end
local found = { 'OK' }
local all = redis.call('HGETALL', group.keys.members)
for i = 1, #all, 2 do
  for _, one in ipairs({ all[i], all[i + 1], #held_by(group, all[i]) }) do found[#found + 1] = one end
end
return found
