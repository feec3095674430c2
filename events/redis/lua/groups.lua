#!lua flags=no-writes
-- Guarantees: reads only. How each group of each stream stands, at one moment.
-- Reply: { now in ms, per group: { stream, name, lag or -1, pending, deferred, oldest unacked id, oldest undelivered id,
--          per pending entry (at most `limit`): { id, owner, idle ms, deliveries, progress, its owner's lease in ms } },
--          skipped keys }
local limit = number()
local all = {}
-- More groups of one stream are not told: whoever may write a stream may make thousands.
local MOST_GROUPS = 32
local function look(stream, info)
  local name = info['name']
  local entries = {}
  for i, line in ipairs(redis.call('XPENDING', stream, name, '-', '+', limit)) do
    local lease_ms = redis.call('HGET', stream .. ':lease:' .. name, line[2]) or ''
    local progress = redis.call('HGET', stream .. ':progress:' .. name, line[1]) or ''
    entries[i] = { line[1], line[2], line[3], line[4], progress, lease_ms }
  end
  local heavy = weigh(stream) > (most_bytes(stream) or math.huge)
  local undelivered = not heavy and redis.call('XRANGE', stream, '(' .. info['last-delivered-id'], '+', 'COUNT', 1)[1]
  all[#all + 1] = {
    stream, name, info['lag'] or -1, info['pending'], redis.call('ZCARD', stream .. ':deferred:' .. name),
    redis.call('XPENDING', stream, name)[2] or '', undelivered and undelivered[1] or '', entries,
  }
end
for _ = 1, count_of() do
  local stream = arg()
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if not groups.err then
    for number, flat in ipairs(groups) do
      if number > MOST_GROUPS then break end
      local info = {}
      for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
      guarded(stream, info['name'], look, info)
    end
  end
end
return { now_ms(), all, skipped }
