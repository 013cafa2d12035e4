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
local all, busy_members, busy_count = redis.call('HGETALL', keys.held), {}, 0
for i = 1, #all, 2 do
  local text, owner = all[i], all[i + 1]
  if not busy_members[owner] then busy_members[owner], busy_count = true, busy_count + 1 end
  if owner == member and not is_known[text] then
    local record, time = find_event(group, text)
    if record then
      for _, one in ipairs({ text, failures_of(group, text) + 1, time, record }) do
        again[#again + 1] = one
      end
    end
  end
end
if #again > 1 then return again end

local idle = math.max(redis.call('HLEN', keys.members) - busy_count, 1)
local there = redis.call('ZCARD', keys.free) + group.log.last - group.front
local share = math.ceil(math.min(there, wanted * idle) / idle)
wanted = math.min(wanted, math.max(share, tonumber(ARGV[7])))

local found, length, taken, bytes, mine, is_over = { 'OK' }, 1, 0, 0, {}, false
local held, has_failures = {}, redis.call('HLEN', keys.failures) > 0

-- Whether the event has to wait for others of its key. What is free is before all that is parked.
local function must_wait(key, is_free)
  if is_free then return is_busy(group, key) and not mine[key] end
  if redis.call('HEXISTS', keys.keys, key) == 0 then return false end
  return not mine[key] or has_parked(group, key)
end

-- Give the event to the member, or park it; sets is_over when there is enough.
local function hand(text, record, time, is_free)
  local key = group.has_order and key_in(record) or nil
  if key then
    if must_wait(key, is_free) then return park(group, text, key) end
    mine[key] = true
    make_busy(group, text, key)
  end
  held[2 * taken + 1], held[2 * taken + 2] = text, member
  found[length + 1], found[length + 2] = text, (has_failures and failures_of(group, text) or 0) + 1
  found[length + 3], found[length + 4] = time, record
  length = length + 4
  taken, bytes = taken + 1, bytes + #record
  is_over = taken >= wanted or bytes >= BYTES_MAX
end

-- Which events of the page are done.
local function done_in(page)
  local done = {}
  if #page > 0 and redis.call('ZCARD', keys.done) > 0 then
    local first, last = number_of(page[1][1]), number_of(page[#page][1])
    for _, text in ipairs(redis.call('ZRANGEBYSCORE', keys.done, whole(first), whole(last))) do
      done[text] = true
    end
  end
  return done
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
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', math.min(wanted - taken, 250))
  if #page == 0 then pass_deleted(group, group.log.last) end
  local is_done = done_in(page)
  for _, entry in ipairs(page) do
    local text, time = string.match(entry[1], '^(%d+)-(%d+)$')
    local number = tonumber(text)
    if is_over or number > group.log.last then break end
    if number > group.front + 1 then pass_deleted(group, number - 1) end
    if number > group.position and not is_done[text] then
      hand(text, entry[2][2], time, false)
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
