-- ARGV: ..., numbers. Hands dead letters out again, as if for the first time; answers how many. Or LOST
-- and the number of one whose event is nowhere any more; nothing is done then.
local group, answer = find_group()
if not group then return answer end
local keys, letters = group.keys, {}
for i = 4, #ARGV do
  local text = ARGV[i]
  if redis.call('HEXISTS', keys.dead, text) == 1
    and redis.call('SISMEMBER', keys.retried, text) == 0 then
    local record = find_event(group, text)
    if not record then return { 'LOST', text } end
    letters[text] = record
  end
end
local count = 0
for text, record in pairs(letters) do
  local number, key = tonumber(text), group.has_order and key_in(record) or nil
  count = count + 1
  redis.call('SADD', keys.retried, text)
  redis.call('HDEL', keys.failures, text)
  if number <= group.position then
    redis.call('SADD', keys.again, text)
  else
    redis.call('ZREM', keys.done, text)
  end
  if is_busy(group, key) then
    park(group, text, key)
  elseif number <= group.front then
    redis.call('ZADD', keys.free, text, text)
  end
end
if count > 0 then tell() end
return { 'OK', count }
