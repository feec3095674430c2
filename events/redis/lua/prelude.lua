-- Shared by all scripts: a cursor over ARGV (binary-safe, so raw bytes need no encoding), the clock, and the fence.
-- Every key touched begins with the name of a stream or is named by the caller; KEYS[1] routes in a Cluster.
local cursor = 0
local function arg()
  cursor = cursor + 1
  return ARGV[cursor]
end
local function number()
  return tonumber(arg())
end
-- How many items follow. Not more than there are arguments left: a range's user may call a script with any number, and
-- one that loops for ever stops Redis for everybody.
local function count_of()
  local announced = number()
  if not announced or announced > #ARGV - cursor then error('more items were announced than there are arguments') end
  return announced
end
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local DEFERRED = '(deferred)'
-- The line of one entry in a group's pending list: owner, idle milliseconds, deliveries; nothing if it has none.
local function pending(stream, group, id)
  local found = redis.pcall('XPENDING', stream, group, id, id, 1)
  if found.err or #found == 0 then return nil end
  return found[1][2], found[1][3], found[1][4]
end
local function holds(stream, group, id, owner, deliveries)
  local who, _, count = pending(stream, group, id)
  return who == owner and tonumber(count) == tonumber(deliveries)
end
-- What an error says: Redis raises tables, Lua raises text.
local function said(problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end
-- Keys that were skipped, each with the reason: what is wrong with one stream is no trouble of the others.
local skipped = {}
-- Which of the keys that the bus keeps for a stream is of another kind than it should be.
local function culprit(stream, group)
  local kinds = {
    { stream, 'stream' }, { stream .. ':timers', 'zset' }, { stream .. ':deferred:' .. group, 'zset' },
    { stream .. ':tries:' .. group, 'hash' }, { stream .. ':progress:' .. group, 'hash' },
    { stream .. ':lease:' .. group, 'hash' },
  }
  for _, pair in ipairs(kinds) do
    local found = redis.pcall('TYPE', pair[1])
    if found.ok and found.ok ~= 'none' and found.ok ~= pair[2] then return pair[1] end
  end
  return stream
end
-- What `step` returns; nothing if it failed, and then the key that it failed on is skipped.
local function guarded(stream, group, step, ...)
  local fine, found = pcall(step, stream, ...)
  if fine then return found end
  skipped[#skipped + 1] = { culprit(stream, group), said(found) }
end
-- What a stream that a range writes may weigh, in bytes, before anything of it is read: an entry in there may be as
-- large as Redis lets it be, and reading one copies it several times. Nothing for a stream that no range writes.
local function most_bytes(stream)
  if not string.find(stream, ':range:', 1, true) then return nil end
  if string.sub(stream, -7) == ':outbox' then return 16777216 end
  if string.sub(stream, -9) == ':progress' then return 8388608 end
  if string.sub(stream, -6) == ':inbox' then return 67108864 end
end
-- Weighed without reading an entry; 0 where it cannot be weighed.
local function weigh(stream)
  local found = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 0)
  return type(found) == 'number' and found or 0
end
-- A stream that weighs too much loses its oldest entries, unread, until it does not: half of them at a time.
local function slim(stream)
  local most = most_bytes(stream)
  if not most then return end
  local before = weigh(stream)
  if before <= most then return end
  local weight, length = before, redis.call('XLEN', stream)
  while weight > most and length > 0 do
    length = math.floor(length / 2)
    redis.call('XTRIM', stream, 'MAXLEN', length)
    weight = weigh(stream)
  end
  skipped[#skipped + 1] = { stream, 'it weighed ' .. before .. ' bytes: its last ' .. length .. ' entries are left' }
end
-- An entry leaves the group: acknowledged, its counts and progress forgotten. That cannot fail half-way.
local function forget(stream, group, id)
  redis.call('XACK', stream, group, id)
  redis.pcall('HDEL', stream .. ':tries:' .. group, id .. ' failed', id .. ' crashed', id .. ' waited')
  redis.pcall('HDEL', stream .. ':progress:' .. group, id)
end
-- `source` + `id` as events.codec.dedup_key spells it, or the entry's own place where it has no id.
local function identity(id, fields)
  local source, event = '', ''
  for i = 1, #fields, 2 do
    if fields[i] == 'source' then source = fields[i + 1] elseif fields[i] == 'id' then event = fields[i + 1] end
  end
  if event == '' then source, event = '', id end
  return #source .. '/' .. source .. '/' .. event
end
-- Many values as one string, lengths first: a reply of one string is read many times faster than one of many.
local function pack(values)
  local lengths = {}
  for i, value in ipairs(values) do lengths[i] = #value end
  return table.concat(lengths, ',') .. ';' .. table.concat(values)
end
-- What a worker is given, packed: stream, id, deliveries, failed, crashed, waited, then names and values. Nothing, and
-- the entry is acknowledged, if the group has an outcome of this event already.
local function accept(stream, group, id, fields, deliveries)
  if redis.call('EXISTS', stream .. ':done:' .. group .. ':' .. identity(id, fields)) == 1 then
    forget(stream, group, id)
    return nil
  end
  local tries = {}
  if deliveries > 1 then
    tries = redis.call('HMGET', stream .. ':tries:' .. group, id .. ' failed', id .. ' crashed', id .. ' waited')
  end
  local values = { stream, id, tostring(deliveries), tries[1] or '0', tries[2] or '0', tries[3] or '0' }
  for i, value in ipairs(fields) do values[6 + i] = value end
  return pack(values)
end
local function unlock(group, home, key, value)
  local lock = home .. ':flight:' .. group .. ':' .. key
  if redis.call('GET', lock) ~= value then return end
  redis.call('DEL', lock)
  local queue = lock .. ':waiting'
  local first = redis.call('ZRANGE', queue, 0, 0)[1]
  if not first then return end
  redis.call('ZREM', queue, first)
  local id, stream = string.match(first, '^(%S+) (.*)$')
  redis.call('ZADD', stream .. ':deferred:' .. group, 'XX', 0, id)
end
-- Release of a single-flight lock: unlock it if this entry holds it and make the entry that waited longest due at once.
-- Should that fail, on a key of the other entry's stream: the lock ends with the lease, the other entry is due after one.
local function release_lock(group, home, key, value)
  if home ~= '' then pcall(unlock, group, home, key, value) end
end
local function read_fields()
  local fields = {}
  for i = 1, count_of() do fields[i] = arg() end
  return fields
end
-- Adds an entry; `limit` is for lossy streams alone ('0': none).
local function add_entry(stream, limit, fields)
  if limit == '0' then return redis.call('XADD', stream, '*', unpack(fields)) end
  return redis.call('XADD', stream, 'MAXLEN', '~', limit, '*', unpack(fields))
end
