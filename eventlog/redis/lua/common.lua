-- What several scripts do. Every script begins with this text.
--
-- Keys of a log named NAME, all in one slot of a cluster:
--   NAME               the stream; event n is the entry `n-t`, t its time in microseconds since 1970,
--                      with one field, `r`: the record
--   {NAME}:log         a hash: version, id, options, limits; last, time, bytes
--   {NAME}:consumers   a hash: consumer -> "position:when", when in microseconds
--   {NAME}:states      a hash: consumer -> "position:state", which counts at that position
--   {NAME}:producer:P  a list: "number:first" of the latest batches of the producer P
-- A script gets the names of the keys, and the id of the log that its caller has opened.

local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function whole(number)
  return string.format('%.0f', number)
end

local function number_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- The log as the caller knows it, or nil if that is gone.
local function find_log(log_key, id)
  local names = { 'id', 'last', 'time', 'bytes', 'max_bytes', 'max_age_us', 'keep_unacked' }
  local values = redis.call('HMGET', log_key, unpack(names))
  if values[1] ~= id then return nil end
  local log = {}
  for i = 2, #names do log[names[i]] = tonumber(values[i]) end
  return log
end

local function position_of(value)
  return value and tonumber(string.match(value, '^%d+'))
end

local function lowest_position(consumers_key, last)
  local lowest = last
  for _, value in ipairs(redis.call('HVALS', consumers_key)) do
    lowest = math.min(lowest, position_of(value))
  end
  return lowest
end

-- Name and position of the consumer that is furthest behind.
local function last_consumer(consumers_key)
  local name, lowest
  local all = redis.call('HGETALL', consumers_key)
  for i = 1, #all, 2 do
    local position = position_of(all[i + 1])
    if not lowest or position < lowest then name, lowest = all[i], position end
  end
  return name or '', lowest or 0
end

-- Delete what retention lets go to make room for so many bytes; false if it keeps them back.
local function make_room(stream, log_key, consumers_key, log, need)
  if not log.max_bytes and not log.max_age_us then return true end
  local oldest_us = log.max_age_us and now_us() - log.max_age_us
  local may_delete, upto, bytes = nil, nil, log.bytes
  local from = '-'
  repeat
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', 50)
    for _, entry in ipairs(page) do
      local number = number_of(entry[1])
      local is_over = log.max_bytes and bytes + need > log.max_bytes
      local time = tonumber(string.match(entry[1], '%d+$'))
      if not is_over and not (oldest_us and time < oldest_us) then page = {} break end
      if not may_delete then
        may_delete = log.keep_unacked == 1 and lowest_position(consumers_key, log.last) or log.last
      end
      if number > may_delete then page = {} break end
      upto, bytes = number, bytes - #entry[2][2]
      from = '(' .. entry[1]
    end
  until #page == 0
  if upto then
    redis.call('XTRIM', stream, 'MINID', '=', whole(upto + 1))
    redis.call('HSET', log_key, 'bytes', whole(bytes))
    log.bytes = bytes
  end
  local is_over = log.max_bytes and bytes + need > log.max_bytes
  return not (is_over and log.keep_unacked == 1 and bytes > 0)
end

-- Store records; the number of the first, or nil and what to answer instead. Nothing is stored then.
local function store(stream, log_key, consumers_key, log, records)
  local size = 0
  for _, record in ipairs(records) do size = size + #record end
  if not make_room(stream, log_key, consumers_key, log, size) then
    local name, position = last_consumer(consumers_key)
    return nil, { 'FULL', name, whole(position), whole(log.max_bytes) }
  end
  local time = math.max(now_us(), log.time)
  local suffix = '-' .. whole(time)
  for i, record in ipairs(records) do
    local id = whole(log.last + i) .. suffix
    local stored = redis.pcall('XADD', stream, 'NOMKSTREAM', id, 'r', record)
    if not stored then return nil, { 'GONE' } end
    if type(stored) == 'table' then
      if string.find(stored.err, 'equal or smaller', 1, true) then return nil, { 'FOREIGN' } end
      return nil, stored
    end
  end
  local first = log.last + 1
  log.last, log.time, log.bytes = log.last + #records, time, log.bytes + size
  redis.call('HSET', log_key, 'last', whole(log.last), 'time', whole(time), 'bytes', whole(log.bytes))
  return first
end
