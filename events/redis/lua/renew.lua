#!lua flags=allow-oom
-- Guarantees: renews exactly the leases that still stand, with the progress noted beside each (and told on the progress
-- stream, if there is one), and names the others. Works when memory is short, and where progress cannot be noted: what
-- runs shall go on. A lock that was lost (failover) is taken again; where another entry has it by now, the lease
-- is as good as lost.
-- Reply, per lease: 1 renewed, 0 lost.
local lease_ms = number()
local replies = {}
local function holds_lock(group, lock, mine)
  local who = redis.call('GET', lock)
  if who and who ~= mine then
    local owner, deliveries, id, stream = string.match(who, '^(%S+) (%S+) (%S+) (.*)$')
    if owner and holds(stream, group, id, owner, deliveries) then return false end
  end
  redis.call('SET', lock, mine, 'PX', lease_ms * 10)
  return true
end
for i = 1, count_of() do
  local stream, group, id, owner, deliveries, home, key = arg(), arg(), arg(), arg(), arg(), arg(), arg()
  local note, told, limit = arg(), arg(), arg()
  local fields = read_fields()
  replies[i] = 0
  local mine = owner .. ' ' .. deliveries .. ' ' .. id .. ' ' .. stream
  if holds(stream, group, id, owner, deliveries)
    and (home == '' or holds_lock(group, home .. ':flight:' .. group .. ':' .. key, mine)) then
    redis.call('XCLAIM', stream, group, owner, 0, id, 'IDLE', 0, 'RETRYCOUNT', deliveries, 'JUSTID')
    if note ~= '' then redis.pcall('HSET', stream .. ':progress:' .. group, id, note) end
    if told ~= '' then pcall(add_entry, told, limit, fields) end
    replies[i] = 1
  end
end
return replies
