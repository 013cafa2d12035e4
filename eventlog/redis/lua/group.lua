-- KEYS: stream, log, consumers, the group, the set of groups. ARGV: log id, channel, the group's name,
-- ordering ("key" or ""), max_deliveries, position. Makes the group, or finds it.
local log = find_log(KEYS[2], ARGV[1])
if not log then return { 'GONE' } end
local is_new = redis.call('EXISTS', KEYS[4]) == 0
redis.call('HSETNX', KEYS[3], ARGV[3], ARGV[6] .. ':' .. whole(now_us()))
if is_new then
  local position = position_of(redis.call('HGET', KEYS[3], ARGV[3]))
  redis.call('SADD', KEYS[5], ARGV[3])
  redis.call('HSET', KEYS[4], 'ordering', ARGV[4], 'max_deliveries', ARGV[5],
    'front', whole(position))
  return { 'OK' }
end
local group = find_group()
local known = redis.call('HMGET', KEYS[4], 'ordering', 'max_deliveries')
if known[1] == ARGV[4] and known[2] == ARGV[5] then return { 'OK' } end
if end_dead_members(group) then tell() end
if redis.call('HLEN', group.keys.members) > 0 then return { 'MISMATCH', known[1], known[2] } end
redis.call('HSET', KEYS[4], 'ordering', ARGV[4], 'max_deliveries', ARGV[5])
if known[1] == ARGV[4] then return { 'OK' } end
for _, name in ipairs(redis.call('ZRANGE', group.keys.parked, 0, -1)) do
  local number = whole(tonumber(string.sub(name, 42)))
  redis.call('ZADD', group.keys.free, number, number)
end
redis.call('DEL', group.keys.parked, group.keys.keys, group.keys.key)
if ARGV[4] == 'key' then
  local busy = redis.call('HKEYS', group.keys.exhausted)
  for _, number in ipairs(redis.call('ZRANGE', group.keys.wait, 0, -1)) do
    busy[#busy + 1] = number
  end
  for _, number in ipairs(busy) do make_busy(group, number, key_in(find_event(group, number) or '')) end
end
return { 'OK' }
