#!lua flags=no-writes
-- Guarantees: changes nothing. Which commands of the other scripts this user may not run on `stream` and the keys that
-- begin with its name. Reply: their names.
local stream = arg()
local done, tries, aside = stream .. ':done:g:i', stream .. ':tries:g', stream .. ':deferred:g'
local wanted = {
  { 'XADD', stream, '*', 'f', 'v' }, { 'XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', stream, '>' },
  { 'XREAD', 'STREAMS', stream, '0' }, { 'XGROUP', 'CREATE', stream, 'g', '0', 'MKSTREAM' },
  { 'XGROUP', 'DELCONSUMER', stream, 'g', 'c' },
  { 'XACK', stream, 'g', '0-1' }, { 'XCLAIM', stream, 'g', 'c', '0', '0-1' }, { 'XPENDING', stream, 'g' },
  { 'XINFO', 'GROUPS', stream }, { 'XRANGE', stream, '-', '+' }, { 'XREVRANGE', stream, '+', '-' },
  { 'XTRIM', stream, 'MAXLEN', '0' }, { 'XDEL', stream, '0-1' }, { 'XLEN', stream }, { 'MEMORY', 'USAGE', stream },
  { 'GET', done }, { 'GETRANGE', done, '0', '1' }, { 'SET', done, 'v' }, { 'EXISTS', done }, { 'DEL', done }, { 'PEXPIRE', done, '1' },
  { 'HGET', tries, 'f' }, { 'HSET', tries, 'f', 'v' }, { 'HMGET', tries, 'f' }, { 'HINCRBY', tries, 'f', '1' },
  { 'HDEL', tries, 'f' }, { 'PERSIST', tries }, { 'TYPE', tries },
  { 'ZADD', aside, '0', 'm' }, { 'ZREM', aside, 'm' }, { 'ZSCORE', aside, 'm' }, { 'ZRANGE', aside, '0', '0' },
  { 'ZRANGEBYSCORE', aside, '0', '0' }, { 'ZCARD', aside },
}
local refused = {}
for _, words in ipairs(wanted) do
  if not redis.acl_check_cmd(unpack(words)) then refused[#refused + 1] = words[1] end
end
return refused
