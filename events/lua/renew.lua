#!lua flags=allow-oom
-- Guarantees: renews exactly the leases that still stand, with the progress noted beside each (and told on the progress
-- stream, if there is one), and names the others. Works when memory is short, and where progress cannot be noted: what
-- runs shall go on.
-- Reply, per lease: 1 renewed, 0 lost.
local lease_ms = number()
local replies = {}
for i = 1, count_of() do
  local stream, group, id, owner, deliveries, home, key = arg(), arg(), arg(), arg(), arg(), arg(), arg()
  local note, told, limit = arg(), arg(), arg()
  local fields = read_fields()
  replies[i] = 0
  if holds(stream, group, id, owner, deliveries) then
    redis.call('XCLAIM', stream, group, owner, 0, id, 'IDLE', 0, 'RETRYCOUNT', deliveries, 'JUSTID')
    if home ~= '' then redis.call('PEXPIRE', home .. ':flight:' .. group .. ':' .. key, lease_ms * 10) end
    if note ~= '' then redis.pcall('HSET', stream .. ':progress:' .. group, id, note) end
    if told ~= '' then pcall(add_entry, told, limit, fields) end
    replies[i] = 1
  end
end
return replies
