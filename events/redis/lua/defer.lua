#!lua flags=allow-oom
-- Guarantees: each entry whose lease still stands is deferred until its time (0: at once) and given up by its owner in
-- the same step, so that no worker runs it before and any worker may after. Not acknowledged, not lost. Works when memory is
-- short. `count` names what is counted: 'failed', 'waited', or nothing.
-- Reply, per entry: 1 deferred, 0 lease lost, or what is wrong with a key of its stream (the others are not concerned).
local now = now_ms()
local function defer(stream, item)
  local group, id = item.group, item.id
  if not holds(stream, group, id, item.owner, item.deliveries) then return 0 end
  redis.call('ZADD', stream .. ':deferred:' .. group, item.delay == 0 and 0 or now + item.delay, id)
  if item.count ~= '' then redis.call('HINCRBY', stream .. ':tries:' .. group, id .. ' ' .. item.count, 1) end
  redis.call('XCLAIM', stream, group, DEFERRED, 0, id, 'RETRYCOUNT', item.deliveries, 'JUSTID')
  redis.pcall('HDEL', stream .. ':progress:' .. group, id)
  release_lock(group, item.home, item.key, item.owner .. ' ' .. item.deliveries .. ' ' .. id .. ' ' .. stream)
  return 1
end
local replies = {}
for i = 1, count_of() do
  local stream = arg()
  local item = { group = arg(), id = arg(), owner = arg(), deliveries = arg(), home = arg(), key = arg() }
  item.delay, item.count = number(), arg()
  replies[i] = guarded(stream, item.group, defer, item) or table.concat(skipped[#skipped], ': ')
end
return replies
