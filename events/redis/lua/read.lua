#!lua flags=no-writes
-- Guarantees: reads only, each item at one moment; what cannot be read for one item is that item's own trouble.
-- Reply, per item: { what was found } or { nothing, why not }. Found are, for 'records', revision and value of each key
-- in turn; for 'revisions' the revision of each key; for 'beats' the beginning of the value of each key; for 'members' those of one sorted set between two scores;
-- for 'lengths' the number of entries of each stream.
-- Of a beat, which a range may have written, no more is read.
local BEAT_BYTES = 4096
local function records()
  local found, failure = {}, nil
  for i = 1, count_of() do
    local pair = redis.pcall('HMGET', arg(), 'revision', 'value')
    failure = failure or pair.err
    found[2 * i - 1], found[2 * i] = pair[1] or false, pair[2] or false
  end
  return failure and { err = failure } or found
end
local function revisions()
  local found = {}
  for i = 1, count_of() do
    local revision = redis.pcall('HGET', arg(), 'revision')
    found[i] = type(revision) == 'string' and revision
  end
  return found
end
local function beats()
  local found = {}
  for i = 1, count_of() do
    local value = redis.pcall('GETRANGE', arg(), 0, BEAT_BYTES - 1)
    found[i] = type(value) == 'string' and value ~= '' and value
  end
  return found
end
local function lengths()
  local found, failure = {}, nil
  for i = 1, count_of() do
    local length = redis.pcall('XLEN', arg())
    if type(length) == 'table' then failure = failure or length.err end
    found[i] = length
  end
  return failure and { err = failure } or found
end
local function members()
  return redis.pcall('ZRANGEBYSCORE', arg(), arg(), arg())
end
local kinds = { records = records, revisions = revisions, beats = beats, members = members, lengths = lengths }
local replies = {}
for i = 1, count_of() do
  local found = kinds[arg()]()
  replies[i] = found.err and { false, found.err } or { found }
end
return replies
