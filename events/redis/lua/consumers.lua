#!lua flags=allow-oom
-- Guarantees: notes for each stream how long the leases of `owner` are, for whoever judges them; and removes consumers of
-- the group that nothing is pending for and that did nothing for `idle_ms`, in the step that looked. Each start of a
-- worker is a consumer of its own, so they would grow for ever; one that comes back is made again by its next read.
-- What is wrong with one stream keeps nothing from the others; other scripts meet the same and name it.
-- Reply: how many were removed.
local group, owner, lease_ms, idle_ms = arg(), arg(), arg(), number()
local removed = 0
local function tidy(stream)
  local leases = stream .. ':lease:' .. group
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  if consumers.err then return end
  redis.call('HSET', leases, owner, lease_ms)
  for _, flat in ipairs(consumers) do
    local info = {}
    for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
    local name = info['name']
    if info['pending'] == 0 and info['idle'] >= idle_ms and name ~= owner and name ~= DEFERRED then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
      redis.call('HDEL', leases, name)
      removed = removed + 1
    end
  end
end
for _ = 1, count_of() do guarded(arg(), group, tidy) end
return removed
