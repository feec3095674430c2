#!lua
-- Guarantees: of all entries of a group with one flight key, one at a time holds the lock. A lock counts only while the
-- very lease that took it stands, so a crashed holder blocks nobody longer than its lease. An entry that finds the lock
-- taken is put aside, uncounted, and made due when the flight lands (or, should that be missed, after a lease).
-- Reply, per entry: 1 boarded, 2 put aside, 0 lease lost.
local replies = {}
local now = now_ms()
local function is_free(group, value, mine)
  if not value or value == mine then return true end
  local owner, deliveries, id, stream = string.match(value, '^(%S+) (%S+) (%S+) (.*)$')
  return not holds(stream, group, id, owner, deliveries)
end
for i = 1, number() do
  local lease_ms, stream, group, id, owner, deliveries = number(), arg(), arg(), arg(), arg(), arg()
  local lock = arg() .. ':flight:' .. group .. ':' .. arg()
  local mine = owner .. ' ' .. deliveries .. ' ' .. id .. ' ' .. stream
  if not holds(stream, group, id, owner, deliveries) then
    replies[i] = 0
  elseif is_free(group, redis.call('GET', lock), mine) then
    redis.call('SET', lock, mine, 'PX', lease_ms * 10)
    redis.call('ZREM', lock .. ':waiting', id .. ' ' .. stream)
    replies[i] = 1
  else
    redis.call('XCLAIM', stream, group, DEFERRED, 0, id, 'RETRYCOUNT', deliveries, 'JUSTID')
    redis.call('ZADD', stream .. ':deferred:' .. group, now + lease_ms, id)
    redis.call('ZADD', lock .. ':waiting', 'NX', now, id .. ' ' .. stream)
    redis.call('PEXPIRE', lock .. ':waiting', 86400000)
    replies[i] = 2
  end
end
return replies
