#!lua flags=allow-oom
-- Guarantees: drops only entries that every group of the stream has been given and has acknowledged; without a group
-- nothing is dropped. Reply: how many.
local stream, keep_ms = arg(), number()
local function before(a, b)
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  a1, a2, b1, b2 = tonumber(a1), tonumber(a2), tonumber(b1), tonumber(b2)
  return a1 < b1 or (a1 == b1 and a2 < b2)
end
local groups = redis.pcall('XINFO', 'GROUPS', stream)
if groups.err or #groups == 0 then return 0 end
local oldest = string.format('%.0f-0', now_ms() - keep_ms)
for _, flat in ipairs(groups) do
  local info = {}
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  local first = redis.call('XPENDING', stream, info['name'])[2]
  local safe = first or info['last-delivered-id']
  if before(safe, oldest) then oldest = safe end
end
return redis.call('XTRIM', stream, 'MINID', oldest)
