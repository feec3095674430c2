#!lua
-- Guarantees: returns at most `count` entries in all, each leased to `owner` in the same step; an entry that the group
-- has an outcome of is acknowledged instead; an entry that is deferred is given to nobody before it is due; a timer
-- becomes an entry once. A group that is gone (flush, failover) is made again from the first entry on.
-- Of each stream at most `each` new ones are taken, of a range's outbox at most `share` in all, so that a long one
-- leaves room for the others.
-- A stream of a range is weighed before it is read: what is too heavy is cut from its oldest end.
-- What is wrong with one stream or its helper keys keeps nothing from the others: it is skipped and named.
-- Reply: { leases, how many duplicates were absorbed, per stream the last id there is (to wait behind), '+' where new
--          entries are left, '' where the count was reached before, or '!' where it cannot be read, skipped keys,
--          milliseconds until the next deferred entry or timer of these streams is due, -1 where there is none }
local group, owner, count, each, share = arg(), arg(), number(), number(), number()
local now = now_ms()
local taken, absorbed, marks = {}, 0, {}

local function most_of(stream, limit)
  return math.min(count - #taken, string.sub(stream, -7) == ':outbox' and share or limit)
end
local function give(stream, id, fields, deliveries)
  local lease = accept(stream, group, id, fields, deliveries)
  if lease then taken[#taken + 1] = lease else absorbed = absorbed + 1 end
end
local function ring(stream, timers, packed)
  redis.call('XADD', stream, '*', unpack(cjson.decode(packed)))
  redis.call('ZREM', timers, packed)
end
local due = math.huge
-- The earliest time in a sorted set.
local function earliest(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return first and tonumber(first)
end
-- Does what is due of a sorted set, and notes when the next of it will be.
local function tend(stream, key, step)
  local first = earliest(key)
  if first and first <= now then
    step(stream, key)
    first = earliest(key)
  end
  if first then due = math.min(due, math.max(0, first - now)) end
end
local function fire(stream, timers)
  for _, packed in ipairs(redis.call('ZRANGEBYSCORE', timers, '-inf', now, 'LIMIT', 0, 100)) do
    local fine, problem = pcall(ring, stream, timers, packed)
    if not fine then skipped[#skipped + 1] = { timers .. ' member ' .. string.sub(packed, 1, 80), said(problem) } end
  end
end
local function wake(stream, aside)
  if #taken >= count then return end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', aside, '-inf', now, 'LIMIT', 0, most_of(stream, count))) do
    redis.call('ZREM', aside, id)
    local who, _, deliveries = pending(stream, group, id)
    if who == DEFERRED then
      local claimed = redis.call('XCLAIM', stream, group, owner, 0, id)[1]
      if claimed then guarded(stream, group, give, id, claimed[2], deliveries + 1) end
    end
  end
end
-- What is to be said of the stream then.
local function read(stream)
  local wanted = most_of(stream, each)
  if wanted < 1 then return '' end
  local found = redis.pcall('XREADGROUP', 'GROUP', group, owner, 'COUNT', wanted, 'STREAMS', stream, '>')
  if found and found.err then
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    found = redis.call('XREADGROUP', 'GROUP', group, owner, 'COUNT', wanted, 'STREAMS', stream, '>')
  end
  local entries = found and found[1][2] or {}
  for _, entry in ipairs(entries) do guarded(stream, group, give, entry[1], entry[2], 1) end
  if #entries == wanted then return '+' end
  if #entries > 0 then return entries[#entries][1] end
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return last and last[1] or '0-0'
end

local streams = {}
for i = 1, count_of() do streams[i] = arg() end
for _, stream in ipairs(streams) do
  guarded(stream, group, slim)
  guarded(stream, group, tend, stream .. ':timers', fire)
  guarded(stream, group, tend, stream .. ':deferred:' .. group, wake)
end
for i, stream in ipairs(streams) do marks[i] = guarded(stream, group, read) or '!' end
return { taken, absorbed, marks, skipped, due == math.huge and -1 or math.ceil(due) }
