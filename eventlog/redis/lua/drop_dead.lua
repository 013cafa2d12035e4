-- ARGV: ..., numbers. Forgets letters that are listed; answers how many.
if not find_log(KEYS[2], ARGV[1]) then return { 'GONE' } end
local group, count = { keys = group_keys(KEYS[4]) }, 0
for i = 4, #ARGV do
  if redis.call('HEXISTS', group.keys.dead, ARGV[i]) == 1
    and redis.call('SISMEMBER', group.keys.retried, ARGV[i]) == 0 then
    drop_letter(group, ARGV[i])
    count = count + 1
  end
end
return { 'OK', count }
