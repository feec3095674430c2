#!lua flags=allow-oom
-- Guarantees: each entry whose lease still stands is put aside until its time (0: at once) and given up by its owner in
-- the same step, so that nobody runs it before and anybody may after. Not acknowledged, not lost. Works when memory is
-- short. `count` names what is counted: 'failed', 'waited', or nothing.
-- Reply, per entry: 1 put aside, 0 lease lost.
local replies = {}
local now = now_ms()
for i = 1, number() do
  local stream, group, id, owner, deliveries, home, key = arg(), arg(), arg(), arg(), arg(), arg(), arg()
  local delay, count = number(), arg()
  replies[i] = 0
  if holds(stream, group, id, owner, deliveries) then
    redis.call('XCLAIM', stream, group, DEFERRED, 0, id, 'RETRYCOUNT', deliveries, 'JUSTID')
    redis.call('ZADD', stream .. ':deferred:' .. group, delay == 0 and 0 or now + delay, id)
    if count ~= '' then redis.call('HINCRBY', stream .. ':tries:' .. group, id .. ' ' .. count, 1) end
    redis.call('HDEL', stream .. ':progress:' .. group, id)
    land(group, home, key, owner .. ' ' .. deliveries .. ' ' .. id .. ' ' .. stream)
    replies[i] = 1
  end
end
return replies
