-- KEYS: stream, log, consumers, the group of the consumer's name, the set of groups, states. ARGV: log
-- id, channel, consumer, position, whether it acknowledges ("1" or "0"), the state if there is one.
-- Answers BEYOND and the last number, if what is acknowledged is not there: the server has lost it;
-- GROUP, if a group is to have a state.
local log = find_log(KEYS[2], ARGV[1])
if not log then return { 'GONE' } end
local position = tonumber(ARGV[4])
local known = position_of(redis.call('HGET', KEYS[3], ARGV[3]))
local is_ack = ARGV[5] == '1'
local state = ARGV[6]
if is_ack and known and (position < known or (position == known and not state)) then
  return { 'OK' }
end
if is_ack and position > log.last then return { 'BEYOND', log.last } end
local group = find_group()
if group and state then return { 'GROUP' } end

-- Everything up to the position is done, whoever has it.
local function skip()
  local keys, passed = group.keys, {}
  local function note(numbers)
    for _, text in ipairs(numbers) do
      if tonumber(text) <= position then passed[#passed + 1] = text end
    end
  end
  note(redis.call('HKEYS', keys.held))
  note(redis.call('HKEYS', keys.exhausted))
  note(redis.call('HKEYS', keys.failures))
  note(redis.call('HKEYS', keys.key))
  note(redis.call('ZRANGEBYSCORE', keys.free, '-inf', whole(position)))
  note(redis.call('ZRANGE', keys.wait, 0, -1))
  note(redis.call('SMEMBERS', keys.again))
  for _, text in ipairs(passed) do settle(group, text) end
  for _, text in ipairs(redis.call('SMEMBERS', keys.retried)) do
    if tonumber(text) <= position then redis.call('SREM', keys.retried, text) end
  end
  redis.call('ZREMRANGEBYSCORE', keys.done, '-inf', whole(position))
  if group.position < position then
    group.position = position - 1
    note_done(group, position)
  end
end

-- Begin anew after the position: what members have is nobody's any more.
local function seek()
  for _, suffix in ipairs(SUFFIXES) do
    if not KEPT[suffix] and suffix ~= 'members' and suffix ~= 'alive' then
      redis.call('DEL', group.keys[suffix])
    end
  end
  note_front(group, position)
  set_position(group, position)
end

if group and is_ack then
  skip()
elseif group then
  seek()
else
  redis.call('HSET', KEYS[3], ARGV[3], whole(position) .. ':' .. whole(now_us()))
end
if state then
  redis.call('HSET', KEYS[6], ARGV[3], whole(position) .. ':' .. state)
else
  redis.call('HDEL', KEYS[6], ARGV[3])
end
tell()
return { 'OK' }
