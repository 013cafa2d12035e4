-- KEYS: stream, log. ARGV: id and version of a log to be made, then its fields and values.
-- Answers the log's version, id and options.
local kind = redis.call('TYPE', KEYS[1]).ok
local log_kind = redis.call('TYPE', KEYS[2]).ok
if log_kind == 'none' and kind == 'none' then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'new', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'new')
  redis.call('HSET', KEYS[2], 'id', ARGV[1], 'version', ARGV[2], 'last', '0', 'time', '0',
    'bytes', '0', unpack(ARGV, 3))
elseif log_kind ~= 'hash' or (kind ~= 'stream' and kind ~= 'none') then
  return { 'OTHER', log_kind ~= 'none' and log_kind ~= 'hash' and log_kind or kind }
elseif kind == 'none' then
  return { 'HALF' }
end
return { 'OK', unpack(redis.call('HMGET', KEYS[2], 'version', 'id', 'options')) }
