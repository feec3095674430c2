#!lua
-- Guarantees: each item takes effect completely or not at all, and never twice. For an item with a lease nothing happens
-- unless that very lease still stands; then posts, records, index, outcome key and acknowledgement are one step.
-- An item that took effect before (its reply got lost) answers 'ok' again and does nothing; a post whose `source` + `id`
-- was added before is skipped. What could fail half-way (permission, kind of key, memory) is asked before; what
-- cannot be asked, a stream whose last id is the greatest there is, is undone with the posts that came before it.
-- Reply, per item, one line each: 'ok', 'duplicate' (of an event done meanwhile: settled without effect), 'lost'
-- (lease), 'conflict' (revision), or 'refused: …' with the reason.
local function read_lease()
  local lease = { stream = arg(), group = arg(), id = arg(), owner = arg(), deliveries = arg(), identity = arg() }
  lease.ending, lease.remember, lease.home, lease.key = arg(), arg(), arg(), arg()
  lease.value = lease.owner .. ' ' .. lease.deliveries .. ' ' .. lease.id .. ' ' .. lease.stream
  lease.outcome = lease.stream .. ':done:' .. lease.group .. ':' .. lease.identity
  return lease
end
local function read_post()
  return { key = arg(), identity = arg(), remember = arg(), due = arg(), limit = arg(), fields = read_fields() }
end
local function read_record()
  return { key = arg(), mode = arg(), value = arg(), expected = arg(), expires = arg() }
end
local function read_index()
  return { key = arg(), member = arg(), score = arg() }
end
local function read_many(reader)
  local all = {}
  for i = 1, count_of() do all[i] = reader() end
  return all
end
local function read_item()
  local item = { token = arg() }
  if item.token == '' then item.lease = read_lease() end
  item.posts, item.records, item.index = read_many(read_post), read_many(read_record), read_many(read_index)
  return item
end

local known = {}
local function line(text)
  return (string.gsub(text, '[\r\n]', ' '))
end
local function refuse(key, kind, command, ...)
  if known[key] == kind then return nil end
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return line('refused: no permission for ' .. command .. ' on ' .. key)
  end
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then return line('refused: ' .. key .. ' is no ' .. kind .. ' but a ' .. found) end
  known[key] = kind
end
local function refused(item)
  local why
  for _, post in ipairs(item.posts) do
    why = why or refuse(post.key, 'stream', 'XADD', '*', 'f', 'v')
    if post.due ~= '0' then why = why or refuse(post.key .. ':timers', 'zset', 'ZADD', '0', 'm') end
  end
  for _, record in ipairs(item.records) do why = why or refuse(record.key, 'hash', 'HSET', 'f', 'v') end
  for _, entry in ipairs(item.index) do why = why or refuse(entry.key, 'zset', 'ZADD', '0', 'm') end
  return why
end
local function add(post, added)
  if post.identity ~= '' then
    local seen = post.key .. ':seen:' .. post.identity
    if not redis.call('SET', seen, '1', 'NX', 'PX', post.remember) then return end
    added[#added + 1] = { 'DEL', seen }
  end
  if post.due == '0' then
    added[#added + 1] = { 'XDEL', post.key, add_entry(post.key, post.limit, post.fields) }
  else
    local timers, packed = post.key .. ':timers', cjson.encode(post.fields)
    if redis.call('ZADD', timers, post.due, packed) == 1 then added[#added + 1] = { 'ZREM', timers, packed } end
  end
end
local function add_all(posts)
  local added = {}
  for _, post in ipairs(posts) do
    local fine, problem = pcall(add, post, added)
    if not fine then
      for i = #added, 1, -1 do redis.pcall(unpack(added[i])) end
      error({ err = post.key .. ' takes no entry: ' .. said(problem) })
    end
  end
end
local function write(record, token)
  if record.mode == 'delete' then
    redis.call('DEL', record.key)
    if token ~= '' then redis.call('SET', record.key .. ':deleted', token, 'PX', 600000) end
    return
  end
  local revision = tonumber(redis.call('HGET', record.key, 'revision') or '0') + 1
  redis.call('HSET', record.key, 'revision', revision, 'value', record.value, 'token', token)
  if record.expires ~= '0' then
    redis.call('PEXPIRE', record.key, record.expires)
  else
    redis.call('PERSIST', record.key)
  end
end
local function mark(entry)
  if entry.score == '' then
    redis.call('ZREM', entry.key, entry.member)
  else
    redis.call('ZADD', entry.key, entry.score, entry.member)
  end
end
-- What ends an item before it takes effect, if anything does.
local function standing(item)
  local lease = item.lease
  if lease then
    if not holds(lease.stream, lease.group, lease.id, lease.owner, lease.deliveries) then
      return redis.call('GET', lease.outcome) == lease.ending .. ' ' .. lease.value and 'ok' or 'lost'
    end
    if redis.call('EXISTS', lease.outcome) == 1 then
      forget(lease.stream, lease.group, lease.id)
      release_lock(lease.group, lease.home, lease.key, lease.value)
      return 'duplicate'
    end
  end
  local why = refused(item)
  if why then return why end
  local first = item.records[1]
  if not lease and first then
    local token
    if first.mode == 'delete' then token = redis.call('GET', first.key .. ':deleted')
    else token = redis.call('HGET', first.key, 'token') end
    if token == item.token then return 'ok' end
  end
  for _, record in ipairs(item.records) do
    if record.expected ~= '' and (redis.call('HGET', record.key, 'revision') or '0') ~= record.expected then
      return 'conflict'
    end
  end
end
local function apply(item)
  local early = standing(item)
  if early then return early end
  add_all(item.posts)
  for _, record in ipairs(item.records) do write(record, item.token) end
  for _, entry in ipairs(item.index) do mark(entry) end
  local lease = item.lease
  if lease then
    redis.call('SET', lease.outcome, lease.ending .. ' ' .. lease.value, 'PX', lease.remember)
    forget(lease.stream, lease.group, lease.id)
    release_lock(lease.group, lease.home, lease.key, lease.value)
  end
  return 'ok'
end
local replies = {}
for i = 1, count_of() do
  local item = read_item()
  local fine, answer = pcall(apply, item)
  replies[i] = fine and answer or line('refused: ' .. said(answer))
end
return table.concat(replies, '\n')
