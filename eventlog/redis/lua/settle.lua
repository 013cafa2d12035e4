-- ARGV: ..., member, lease in microseconds, then for each event one of
--   "D", number, attempt, how many results, the results
--   "R", number, attempt, how many events: these and those behind it are done, without results
--   "F", number, attempt, whether it is final, delay in microseconds, report
--   "G", number, attempt
-- Answers the numbers that were not the member's. What was said already is answered as it was.
local group, answer = find_group()
if not group then return answer end
local keys, member = group.keys, ARGV[4]
local digest = redis.sha1hex(table.concat(ARGV, '\0', 6))
local said = redis.call('HGET', keys.said, member)
if said and string.sub(said, 1, 40) == digest then return cmsgpack.unpack(string.sub(said, 41)) end

local function is_mine(text) return redis.call('HGET', keys.held, text) == member end

local outcomes, results, at = {}, {}, 6
while at <= #ARGV do
  local one = { kind = ARGV[at], text = ARGV[at + 1] }
  if one.kind == 'D' then
    local count = tonumber(ARGV[at + 3])
    for i = at + 4, at + 3 + count do
      if is_mine(one.text) then results[#results + 1] = ARGV[i] end
    end
    at = at + 4 + count
  elseif one.kind == 'F' then
    one.is_final, one.delay_us, one.report = ARGV[at + 3] == '1', tonumber(ARGV[at + 4]), ARGV[at + 5]
    at = at + 6
  elseif one.kind == 'R' then
    one.count = tonumber(ARGV[at + 3])
    at = at + 4
  else
    at = at + 3
  end
  outcomes[#outcomes + 1] = one
end

if #results > 0 then
  local first, refusal = store(KEYS[1], KEYS[2], KEYS[3], group.log, results)
  if not first then return refusal end
  for number = first, group.log.last do note_done(group, number) end
end

local stale, handled = { 'OK' }, {}

-- Events that were handled one after another are settled together.
local function settle_handled()
  if #handled == 0 then return end
  settle_held(group, handled)
  if redis.call('SCARD', keys.retried) > 0 then
    for _, text in ipairs(handled) do
      if redis.call('SISMEMBER', keys.retried, text) == 1 then drop_letter(group, text) end
    end
  end
  count(group, member, #handled, 0, 0)
  handled = {}
end

local function settle_run(one)
  settle_handled()
  local first = tonumber(one.text)
  for from = first, first + one.count - 1, 1000 do
    local texts = {}
    for number = from, math.min(from + 999, first + one.count - 1) do
      texts[#texts + 1] = whole(number)
    end
    for i, owner in ipairs(redis.call('HMGET', keys.held, unpack(texts))) do
      local list = owner == member and handled or stale
      list[#list + 1] = texts[i]
    end
  end
  settle_handled()
end

-- With key order the later events of its key, which the member has, wait for the one that failed.
local function give_back_key(text)
  local key = key_of(group, text)
  for _, other in ipairs(key and held_by(group, member) or {}) do
    if tonumber(other) > tonumber(text) and key_of(group, other) == key then
      redis.call('HDEL', keys.held, other)
      make_free(group, other)
    end
  end
end

local function failed(one)
  local deliveries = failures_of(group, one.text) + 1
  redis.call('SREM', keys.suspects, one.text)  -- its member has outlived it
  local is_dead = one.is_final or deliveries >= group.max_deliveries
  count(group, member, 0, 1, is_dead and 0 or 1)
  if is_dead then return bury(group, one.text, deliveries, one.report) end
  redis.call('HSET', keys.failures, one.text, deliveries)
  redis.call('HDEL', keys.held, one.text)
  redis.call('ZADD', keys.wait, whole(now_us() + one.delay_us), one.text)
  give_back_key(one.text)
end

local is_named = {}
for _, one in ipairs(outcomes) do
  if one.kind ~= 'D' or is_named[one.text] then settle_handled() end
  is_named[one.text] = true
  if one.kind == 'R' then
    settle_run(one)
  elseif not is_mine(one.text) then
    stale[#stale + 1] = one.text
  elseif one.kind == 'D' then
    handled[#handled + 1] = one.text
  elseif one.kind == 'F' then
    failed(one)
  else
    redis.call('HDEL', keys.held, one.text)
    make_free(group, one.text)
  end
end
settle_handled()
if seat_of(group, member) then
  redis.call('HSET', keys.said, member, digest .. cmsgpack.pack(stale))
  redis.call('ZADD', keys.alive, whole(now_us() + ARGV[5]), member)
end
tell()
return stale
