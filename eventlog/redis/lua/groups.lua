-- A group of a log, as eventlog.memory.groups describes it; this text stands before the scripts that
-- use it. Keys of the group G of the log NAME begin with {NAME}:group:G and end with
--   (nothing)  a hash: ordering, max_deliveries, front (the last number that was come to), letters
--   :done      a sorted set: numbers above the position that are done
--   :again     a set: dead letters at or below the position that are to be tried once more
--   :free      a sorted set: numbers up to the front that may be taken
--   :parked    a sorted set by name: "key hash:number", while an earlier event of the key is busy
--   :keys      a hash: key hash -> how many events of it are held, wait or are exhausted; 0 while
--              none is, and some of those that were parked are free and others are parked still
--   :key       a hash: number -> key hash, of those that are busy or parked
--   :held      a hash: number -> member
--   :failures  a hash: number -> failed deliveries
--   :wait      a sorted set: numbers, by when they are to be tried again (microseconds)
--   :exhausted a hash: number -> "deliveries:member:owner"
--   :suspects  a set
--   :members   a hash: member -> "owner:pid:handled:failed:retried"
--   :alive     a sorted set: members, by when they count as dead
--   :former    a list: "member:owner:0:handled:failed:retried" of pools' members that ended lately
--   :said      a hash: member -> digest of what it said last, and the answer
--   :dead      a hash: number -> the letter; :order a sorted set; :retried a set: see letters
-- Every number up to the front, above the position, is in one of done, free, parked, held, wait and
-- exhausted; of those at or below it only the ones in `again` are.

local SUFFIXES = { 'done', 'again', 'free', 'parked', 'keys', 'key', 'held', 'failures', 'wait',
  'exhausted', 'suspects', 'members', 'alive', 'former', 'said', 'dead', 'order', 'retried' }
local KEPT = { dead = true, order = true }
local FREED_AT_ONCE, FORMER_KEPT = 16, 32

local function group_keys(base)
  local keys = { base = base }
  for _, suffix in ipairs(SUFFIXES) do keys[suffix] = base .. ':' .. suffix end
  return keys
end

-- KEYS: stream, log, consumers, the group. ARGV: log id, channel, the group's name.
local function find_group()
  local log = find_log(KEYS[2], ARGV[1])
  if not log then return nil, { 'GONE' } end
  local values = redis.call('HMGET', KEYS[4], 'ordering', 'max_deliveries', 'front')
  if not values[1] then return nil, { 'NOGROUP' } end
  return {
    log = log,
    keys = group_keys(KEYS[4]),
    name = ARGV[3],
    has_order = values[1] == 'key',
    max_deliveries = tonumber(values[2]),
    front = tonumber(values[3]),
    position = position_of(redis.call('HGET', KEYS[3], ARGV[3])) or 0,
  }
end

local function tell() redis.call('PUBLISH', ARGV[2], '') end

local function set_position(group, position)
  group.position = position
  redis.call('HSET', KEYS[3], group.name, whole(position) .. ':' .. whole(now_us()))
end

local function note_front(group, front)
  group.front = front
  redis.call('HSET', group.keys.base, 'front', whole(front))
end

-- --- keys -------------------------------------------------------------------------------------

-- The digest of an event's key, or nil. A record is the body of a batch of one event: an array,
-- 16 bytes of id behind two, 8 of time behind two, and the keys: nil, or an array of one.
local function key_in(record)
  if string.byte(record, 30) ~= 0x91 then return nil end
  local head = string.byte(record, 31)
  if not head or head == 0xc0 then return nil end
  local from, size
  if head >= 0xa0 and head <= 0xbf then
    from, size = 32, head - 0xa0
  elseif head == 0xd9 then
    from, size = 33, string.byte(record, 32)
  elseif head == 0xda then
    from, size = 34, string.byte(record, 32) * 256 + string.byte(record, 33)
  else
    from, size = 36, #record
  end
  return redis.sha1hex(string.sub(record, from, from + size - 1))
end

local function parked_name(key, number) return key .. string.format(':%020.0f', number) end

local function make_busy(group, number, key)
  if not key then return end
  redis.call('HINCRBY', group.keys.keys, key, 1)
  redis.call('HSET', group.keys.key, number, key)
end

local function key_of(group, number)
  return group.has_order and redis.call('HGET', group.keys.key, number) or nil
end

local function is_busy(group, key)
  return key and tonumber(redis.call('HGET', group.keys.keys, key) or 0) > 0
end

local function range_of_parked(key) return '[' .. key .. ':', '[' .. key .. ';' end

-- Whether events of the key are parked, or may be.
local function has_parked(group, key)
  local from, to = range_of_parked(key)
  return #redis.call('ZRANGEBYLEX', group.keys.parked, from, to, 'LIMIT', 0, 1) > 0
end

-- Free the first ones that are parked for the key: some at a time, for what a member leaves of them is
-- parked again, and that for each event of a key with many would take time by their square.
local function free_parked(group, key)
  local from, to = range_of_parked(key)
  local names = redis.call('ZRANGEBYLEX', group.keys.parked, from, to, 'LIMIT', 0, FREED_AT_ONCE + 1)
  if #names > FREED_AT_ONCE then
    names[#names] = nil
    redis.call('HSET', group.keys.keys, key, 0)
  else
    redis.call('HDEL', group.keys.keys, key)
  end
  for _, name in ipairs(names) do
    local parked = whole(tonumber(string.sub(name, 42)))
    redis.call('ZREM', group.keys.parked, name)
    redis.call('HDEL', group.keys.key, parked)
    redis.call('ZADD', group.keys.free, parked, parked)
  end
end

-- Free what is parked for keys of which nothing is busy and, as no event is, nothing free; whether
-- there was any. Its freed ones were acknowledged, or deleted, before anybody took them.
local function free_forgotten(group)
  if not group.has_order or redis.call('ZCARD', group.keys.parked) == 0 then return false end
  local all, found = redis.call('HGETALL', group.keys.keys), false
  for i = 1, #all, 2 do
    if all[i + 1] == '0' then
      free_parked(group, all[i])
      found = true
    end
  end
  return found
end

-- The event is not busy any more; with the last one of its key those that wait for that are free.
local function make_idle(group, number)
  local key = key_of(group, number)
  if not key then return end
  redis.call('HDEL', group.keys.key, number)
  if redis.call('HINCRBY', group.keys.keys, key, -1) > 0 then return end
  free_parked(group, key)
end

local function park(group, number, key)
  redis.call('HSET', group.keys.key, number, key)
  redis.call('ZADD', group.keys.parked, 0, parked_name(key, number))
end

local function unpark(group, number)
  local key = key_of(group, number)
  if key and redis.call('ZREM', group.keys.parked, parked_name(key, number)) == 1 then
    redis.call('HDEL', group.keys.key, number)
  end
end

-- Hand the event out again: now, or behind the others of its key.
local function make_free(group, number)
  local key = key_of(group, number)
  make_idle(group, number)
  if is_busy(group, key) then
    park(group, number, key)
  else
    redis.call('ZADD', group.keys.free, number, number)
  end
end

-- --- what becomes of an event -----------------------------------------------------------------

-- Run a command on a key and many arguments: a call takes a few thousand at most.
local function call_with_all(command, key, arguments)
  for i = 1, #arguments, 1000 do
    redis.call(command, key, unpack(arguments, i, math.min(i + 999, #arguments)))
  end
end

-- Everything up to `position` is done, and whatever is done directly behind it.
local function advance(group, position)
  repeat
    local page = redis.call('ZRANGE', group.keys.done, 0, 99)
    local removed = 0
    for _, one in ipairs(page) do
      if tonumber(one) > position + 1 then break end
      position, removed = math.max(position, tonumber(one)), removed + 1
    end
    if removed > 0 then redis.call('ZREMRANGEBYRANK', group.keys.done, 0, removed - 1) end
  until removed < 100
  set_position(group, position)
  if position > group.front then note_front(group, position) end
end

local function note_done(group, number)
  if number <= group.position then return end
  if number == group.position + 1 then return advance(group, number) end
  redis.call('ZADD', group.keys.done, whole(number), whole(number))
end

-- The event needs no handling any more.
local function settle(group, text)
  local keys = group.keys
  if redis.call('HDEL', keys.held, text) + redis.call('ZREM', keys.wait, text)
    + redis.call('HDEL', keys.exhausted, text) > 0 then
    make_idle(group, text)
  end
  unpark(group, text)
  redis.call('HDEL', keys.failures, text)
  redis.call('ZREM', keys.free, text)
  redis.call('SREM', keys.suspects, text)
  redis.call('SREM', keys.again, text)
  note_done(group, tonumber(text))
end

-- The same for many that are held, and so stand nowhere else.
local function settle_held(group, texts)
  local keys, places, position = group.keys, {}, group.position
  call_with_all('HDEL', keys.held, texts)
  for key, command in pairs({ failures = 'HDEL', suspects = 'SREM', again = 'SREM' }) do
    if redis.call('EXISTS', keys[key]) == 1 then call_with_all(command, keys[key], texts) end
  end
  for _, text in ipairs(texts) do
    if group.has_order then make_idle(group, text) end
    local number = tonumber(text)
    if number == position + 1 then
      position = number
    elseif number > position then
      places[#places + 1], places[#places + 2] = text, text
    end
  end
  call_with_all('ZADD', keys.done, places)
  if position > group.position then advance(group, position) end
end

local function drop_letter(group, text)
  redis.call('HDEL', group.keys.dead, text)
  redis.call('ZREM', group.keys.order, text)
  redis.call('SREM', group.keys.retried, text)
end

local function letter_of(group, text)
  local packed = redis.call('HGET', group.keys.dead, text)
  return packed and cmsgpack.unpack(packed)
end

-- The event as the stream has it, or as its dead letter has: record and time; nil if nowhere.
local function find_event(group, text)
  local entry = redis.call('XRANGE', KEYS[1], text, text)[1]
  if entry then return entry[2][2], string.match(entry[1], '%d+$') end
  local letter = letter_of(group, text)
  if letter and letter[4] ~= '' then return letter[4], letter[5] end
end

local function bury(group, text, deliveries, report)
  local record, time = find_event(group, text)
  local letter = { report, deliveries, whole(now_us()), record or '', time or '0' }
  redis.call('SREM', group.keys.retried, text)
  redis.call('HSET', group.keys.dead, text, cmsgpack.pack(letter))
  local place = redis.call('HINCRBY', group.keys.base, 'letters', 1)
  redis.call('ZADD', group.keys.order, place, text)
  settle(group, text)
end

local function failures_of(group, text)
  return tonumber(redis.call('HGET', group.keys.failures, text) or 0)
end

-- --- members ----------------------------------------------------------------------------------

local function seat_of(group, member)
  local text = redis.call('HGET', group.keys.members, member)
  if not text then return nil end
  local seat = {}
  for field in string.gmatch(text, '[^:]+') do seat[#seat + 1] = field end
  return seat
end

local function count(group, member, handled, failed, retried)
  local seat = seat_of(group, member)
  if not seat then return end
  seat[3], seat[4], seat[5] = seat[3] + handled, seat[4] + failed, seat[5] + retried
  for i = 3, #seat do seat[i] = whole(seat[i]) end
  redis.call('HSET', group.keys.members, member, table.concat(seat, ':'))
end

local function held_by(group, member)
  local numbers, all = {}, redis.call('HGETALL', group.keys.held)
  for i = 1, #all, 2 do
    if all[i + 1] == member then numbers[#numbers + 1] = all[i] end
  end
  return numbers
end

-- The member is gone: what it had goes to others. Several events at once are all suspects, and only
-- a death alone makes one exhausted.
local function end_member(group, member, has_failed)
  local seat = seat_of(group, member)
  redis.call('HDEL', group.keys.members, member)
  redis.call('ZREM', group.keys.alive, member)
  redis.call('HDEL', group.keys.said, member)
  if seat and seat[1] ~= '0' then
    redis.call('LPUSH', group.keys.former, table.concat({ member, seat[1], 0, unpack(seat, 3) }, ':'))
    redis.call('LTRIM', group.keys.former, 0, FORMER_KEPT - 1)
  end
  local numbers = held_by(group, member)
  for _, text in ipairs(numbers) do
    redis.call('HDEL', group.keys.held, text)
    local before = failures_of(group, text)
    local limit = #numbers > 1 and group.max_deliveries - 1 or group.max_deliveries
    local failures = has_failed and math.max(math.min(before + 1, limit), before) or before
    if has_failed then
      redis.call('HSET', group.keys.failures, text, failures)
      redis.call('SADD', group.keys.suspects, text)
    end
    if has_failed and failures >= group.max_deliveries then
      local facts = failures .. ':' .. member .. ':' .. (seat and seat[1] or '0')
      redis.call('HSET', group.keys.exhausted, text, facts)
    else
      make_free(group, text)
    end
  end
  return seat ~= nil
end

local function end_dead_members(group)
  local now, ended = now_us(), false
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', group.keys.alive, '-inf', whole(now))) do
    end_member(group, member, true)
    ended = true
  end
  return ended
end

local function resume(group)
  local resumed = false
  local due = redis.call('ZRANGEBYSCORE', group.keys.wait, '-inf', whole(now_us()))
  for _, text in ipairs(due) do
    redis.call('ZREM', group.keys.wait, text)
    make_free(group, text)
    resumed = true
  end
  return resumed
end

-- When something is to be done though nobody says anything: microseconds from now, or -1.
local function next_due(group)
  local soonest
  for _, key in ipairs({ group.keys.wait, group.keys.alive }) do
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then soonest = math.min(soonest or first[2], tonumber(first[2])) end
  end
  return soonest and math.max(soonest - now_us(), 0) or -1
end

-- Pass over what retention has deleted behind the front, up to that number.
local function pass_deleted(group, upto)
  if upto <= group.front then return end
  if group.position >= group.front then
    note_done(group, group.position + 1)
    if group.position < upto then
      redis.call('ZREMRANGEBYSCORE', group.keys.done, '-inf', whole(upto))
      set_position(group, upto)
    end
  else
    for number = group.front + 1, upto do note_done(group, number) end
  end
  note_front(group, math.max(upto, group.front))
end

local function look_for_deleted(group)
  if group.front >= group.log.last then return end
  local entry = redis.call('XRANGE', KEYS[1], whole(group.front + 1), '+', 'COUNT', 1)[1]
  pass_deleted(group, entry and number_of(entry[1]) - 1 or group.log.last)
end
