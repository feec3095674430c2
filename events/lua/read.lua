#!lua flags=no-writes
-- Guarantees: reads only, each item at one moment; what cannot be read for one item is that item's own trouble.
-- Reply, per item: { what was found } or { nothing, why not }. Found are, for 'records', revision and value of each key
-- in turn; for 'beats' the value of each key; for 'members' those of one sorted set between two scores.
local function records()
  local found, failure = {}, nil
  for i = 1, count_of() do
    local pair = redis.pcall('HMGET', arg(), 'revision', 'value')
    failure = failure or pair.err
    found[2 * i - 1], found[2 * i] = pair[1] or false, pair[2] or false
  end
  return failure and { err = failure } or found
end
local function beats()
  local keys = {}
  for i = 1, count_of() do keys[i] = arg() end
  return redis.pcall('MGET', unpack(keys))
end
local function members()
  return redis.pcall('ZRANGEBYSCORE', arg(), arg(), arg())
end
local kinds = { records = records, beats = beats, members = members }
local replies = {}
for i = 1, count_of() do
  local found = kinds[arg()]()
  replies[i] = found.err and { false, found.err } or { found }
end
return replies
