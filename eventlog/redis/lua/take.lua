-- ARGV: ..., member, lease in microseconds, count, least, then the numbers that it knows it has. What it
-- has and does not know of was answered to nobody, and is answered again. Answers number, attempt, time and record of
-- each event; or WAIT and the microseconds until there might be some (-1: not before somebody says
-- so), or AGAIN if it has looked at many without finding one.
local LOOK_AT, BYTES_MAX = 2000, 1024 * 1024
local group, answer = find_group()
if not group then return answer end
local keys, member, wanted = group.keys, ARGV[4], tonumber(ARGV[6])
if not seat_of(group, member) then return { 'NOMEMBER' } end
redis.call('ZADD', keys.alive, whole(now_us() + ARGV[5]), member)
local has_ended, has_resumed = end_dead_members(group), resume(group)

local is_known, again = {}, { 'OK' }
for i = 8, #ARGV do is_known[ARGV[i]] = true end
for _, text in ipairs(held_by(group, member)) do
  local record, time = find_event(group, text)
  if not is_known[text] and record then
    for _, one in ipairs({ text, failures_of(group, text) + 1, time, record }) do
      again[#again + 1] = one
    end
  end
end
if #again > 1 then return again end

local busy_members, busy_count = {}, 0
for _, one in ipairs(redis.call('HVALS', keys.held)) do
  if not busy_members[one] then busy_members[one], busy_count = true, busy_count + 1 end
end
local idle = math.max(redis.call('HLEN', keys.members) - busy_count, 1)
local there = redis.call('ZCARD', keys.free) + group.log.last - group.front
local share = math.ceil(math.min(there, wanted * idle) / idle)
wanted = math.min(wanted, math.max(share, tonumber(ARGV[7])))

local found, taken, bytes, mine, is_over = { 'OK' }, 0, 0, {}, false
local held, has_failures = {}, redis.call('HLEN', keys.failures) > 0

-- Whether the event has to wait for others of its key. What is free is before all that is parked.
local function must_wait(key, is_free)
  if not key then return false end
  if is_free then return is_busy(group, key) and not mine[key] end
  if redis.call('HEXISTS', keys.keys, key) == 0 then return false end
  return not mine[key] or has_parked(group, key)
end

-- Give the event to the member, or park it; sets is_over when there is enough.
local function hand(text, record, time, is_free)
  local key = group.has_order and key_in(record) or nil
  if must_wait(key, is_free) then return park(group, text, key) end
  if key then mine[key] = true end
  make_busy(group, text, key)
  held[#held + 1], held[#held + 2] = text, member
  for _, one in ipairs({ text, (has_failures and failures_of(group, text) or 0) + 1, time, record }) do
    found[#found + 1] = one
  end
  taken, bytes = taken + 1, bytes + #record
  is_over = taken >= wanted or bytes >= BYTES_MAX
end

local looked_at = 0
while not is_over do
  local page = redis.call('ZRANGE', keys.free, 0, 99)
  if #page == 0 then break end
  for _, text in ipairs(page) do
    local is_suspect = redis.call('SISMEMBER', keys.suspects, text) == 1
    if is_over or (is_suspect and taken > 0) then is_over = true break end
    local record, time = find_event(group, text)
    looked_at = looked_at + 1
    redis.call('ZREM', keys.free, text)
    if record then
      local before = taken
      hand(text, record, time, true)
      is_over = is_over or (is_suspect and taken > before)
    else
      settle(group, text)
    end
  end
end
while not is_over and group.front < group.log.last and looked_at < LOOK_AT do
  local from = whole(group.front + 1)
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', math.min(wanted - taken, 100))
  if #page == 0 then pass_deleted(group, group.log.last) end
  local has_done = redis.call('ZCARD', keys.done) > 0
  for _, entry in ipairs(page) do
    local number = number_of(entry[1])
    if is_over or number > group.log.last then break end
    pass_deleted(group, number - 1)
    local is_done = has_done and redis.call('ZSCORE', keys.done, whole(number))
    if number > group.position and not is_done then
      hand(whole(number), entry[2][2], string.match(entry[1], '%d+$'), false)
    end
    group.front, looked_at = math.max(group.front, number), looked_at + 1
  end
  note_front(group, group.front)
end
call_with_all('HSET', keys.held, held)
if has_ended or (has_resumed and taken == 0) then tell() end
if taken > 0 then return found end
if looked_at >= LOOK_AT or free_forgotten(group) then return { 'AGAIN' } end
return { 'WAIT', next_due(group) }
