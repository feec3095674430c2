#!lua
-- Guarantees: leases to `owner` only entries whose holder has not renewed for a whole lease, plus `owner`'s own that it
-- does not know of (the reply that handed them over was lost). Entries deferred are skipped while their time is
-- known. A holder that vanished is counted as one crash of the entry, unless Redis was unavailable (`blame` is 0) and nobody
-- could renew; a lost reply is not. How long a holder's leases are is what it noted itself (consumers.lua).
-- The cursor of each stream is carried by the caller, so that the tail of a long pending list is reached.
-- What is wrong with one stream or its helper keys keeps nothing from the others: it is skipped and named.
-- Reply: { leases, per stream the next cursor, takeovers, orphaned, absorbed, skipped keys }
local group, owner, count, lease_ms, blame = arg(), arg(), number(), number(), number()
local PAGE = 100
local taken, cursors, takeovers, orphaned, absorbed = {}, {}, 0, 0, 0
local held, noted = {}, {}
local function lease_of(stream, who)
  local place = stream .. ' ' .. who
  noted[place] = noted[place] or tonumber(redis.call('HGET', stream .. ':lease:' .. group, who) or lease_ms)
  return noted[place]
end
for _ = 1, count_of() do
  local stream = arg()
  held[stream .. ' ' .. arg()] = true
end
-- 'crash', 'orphaned', or nothing where the entry is in good hands.
local function abandoned(stream, id, who, idle)
  if who == owner then return not held[stream .. ' ' .. id] and 'orphaned' end
  if who == DEFERRED then return not redis.call('ZSCORE', stream .. ':deferred:' .. group, id) and 'orphaned' end
  return idle >= lease_of(stream, who) and 'crash'
end
local function examine(stream, id, who, idle, deliveries)
  local why = abandoned(stream, id, who, idle)
  if not why then return end
  local claimed = redis.call('XCLAIM', stream, group, owner, 0, id)[1]
  if not claimed then return end
  if why == 'crash' then
    if blame == 1 then redis.call('HINCRBY', stream .. ':tries:' .. group, id .. ' crashed', 1) end
    takeovers = takeovers + 1
  else
    orphaned = orphaned + 1
  end
  local lease = accept(stream, group, id, claimed[2], deliveries + 1)
  if lease then taken[#taken + 1] = lease else absorbed = absorbed + 1 end
end
local function scan(stream, from)
  slim(stream)
  local lines = redis.pcall('XPENDING', stream, group, from, '+', PAGE)
  if lines.err then return '-' end
  for _, line in ipairs(lines) do
    if #taken >= count then return line[1] end
    guarded(stream, group, examine, unpack(line))
  end
  return #lines == PAGE and '(' .. lines[PAGE][1] or '-'
end
for i = 1, count_of() do
  local stream, from = arg(), arg()
  cursors[i] = guarded(stream, group, scan, from) or '-'
end
return { taken, cursors, takeovers, orphaned, absorbed, skipped }
