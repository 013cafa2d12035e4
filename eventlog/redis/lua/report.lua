-- Answers ordering, max_deliveries, position, lag, and how many events are held, members there,
-- deliveries failed and letters listed.
local group, answer = find_group()
if not group then return answer end
if end_dead_members(group) then tell() end
local keys = group.keys
local lag = math.max(group.log.last - group.position - redis.call('ZCARD', keys.done), 0)
return { 'OK', group.has_order and 'key' or '', group.max_deliveries, group.position,
  lag + redis.call('SCARD', keys.again), redis.call('HLEN', keys.held),
  redis.call('HLEN', keys.members), redis.call('HLEN', keys.failures),
  redis.call('ZCARD', keys.order) - redis.call('SCARD', keys.retried) }
