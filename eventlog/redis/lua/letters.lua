-- Answers number and letter of each that is listed; they outlive their group.
if not find_log(KEYS[2], ARGV[1]) then return { 'GONE' } end
local keys, found = group_keys(KEYS[4]), { 'OK' }
for _, text in ipairs(redis.call('ZRANGE', keys.order, 0, -1)) do
  if redis.call('SISMEMBER', keys.retried, text) == 0 then
    found[#found + 1] = text
    found[#found + 1] = redis.call('HGET', keys.dead, text)
  end
end
return found
