#!lua
-- Guarantees: a dead letter goes back to its stream once: the group's outcome is forgotten, the entry added again and
-- the letter removed in one step; nothing happens if the letter is gone. Reply: 1 done, 0 gone.
local dead, letter, stream, outcome = arg(), arg(), arg(), arg()
local fields = read_fields()
if redis.call('XDEL', dead, letter) == 0 then return 0 end
redis.call('DEL', outcome)
redis.call('XADD', stream, '*', unpack(fields))
return 1
