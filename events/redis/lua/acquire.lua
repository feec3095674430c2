#!lua
-- Guarantees: of all entries of a group with one single-flight key, one at a time holds the lock. A lock counts only
-- while the lease that took it stands, so a crashed holder blocks nobody longer than its lease. An entry that finds the
-- lock taken is deferred, uncounted, and made due when the lock is released (or, should that be missed, after a lease).
-- Reply, per entry: 1 acquired, 2 deferred, 0 lease lost, or what is wrong with a key of its stream or lock.
local replies = {}
local now = now_ms()
local function is_free(group, value, mine)
  if not value or value == mine then return true end
  local owner, deliveries, id, stream = string.match(value, '^(%S+) (%S+) (%S+) (.*)$')
  return not holds(stream, group, id, owner, deliveries)
end
local function acquire(stream, item)
  local group, id = item.group, item.id
  local mine = item.owner .. ' ' .. item.deliveries .. ' ' .. id .. ' ' .. stream
  if not holds(stream, group, id, item.owner, item.deliveries) then return 0 end
  if is_free(group, redis.call('GET', item.lock), mine) then
    redis.call('SET', item.lock, mine, 'PX', item.lease_ms * 10)
    redis.call('ZREM', item.lock .. ':waiting', id .. ' ' .. stream)
    return 1
  end
  redis.call('ZADD', stream .. ':deferred:' .. group, now + item.lease_ms, id)
  redis.call('XCLAIM', stream, group, DEFERRED, 0, id, 'RETRYCOUNT', item.deliveries, 'JUSTID')
  redis.call('ZADD', item.lock .. ':waiting', 'NX', now, id .. ' ' .. stream)
  redis.call('PEXPIRE', item.lock .. ':waiting', 86400000)
  return 2
end
for i = 1, count_of() do
  local lease_ms, stream = number(), arg()
  local item = { lease_ms = lease_ms, group = arg(), id = arg(), owner = arg(), deliveries = arg() }
  item.lock = arg() .. ':flight:' .. item.group .. ':' .. arg()
  replies[i] = guarded(stream, item.group, acquire, item) or table.concat(skipped[#skipped], ': ')
end
return replies
