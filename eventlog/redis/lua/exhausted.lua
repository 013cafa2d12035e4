-- ARGV: ..., owner. Answers the microseconds until there might be some, then number, deliveries, member
-- and owner of each event that this owner is to reject: not those of others that have members.
local group, answer = find_group()
if not group then return answer end
if end_dead_members(group) then tell() end
local others = {}
for _, member in ipairs(redis.call('HKEYS', group.keys.members)) do
  others[seat_of(group, member)[1]] = true
end
others[ARGV[4]] = nil
local found = { 'OK', next_due(group) }
local all = redis.call('HGETALL', group.keys.exhausted)
for i = 1, #all, 2 do
  local deliveries, member, owner = string.match(all[i + 1], '^(%d+):(%d+):(%d+)$')
  if owner == '0' or not others[owner] then
    for _, one in ipairs({ all[i], deliveries, member, owner }) do found[#found + 1] = one end
  end
end
return found
