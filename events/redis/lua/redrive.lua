#!lua
-- Guarantees: a dead letter goes back to its stream once: the entry added again, the group's outcome forgotten and the
-- letter removed in one step. What can fail comes first, so a letter that cannot go back stays where it is. Nothing
-- happens if the letter is gone; a repeat of the call that sent it (its reply got lost) answers as the first did.
-- Reply: 1 done, 0 gone.
local dead, letter, stream, outcome, token = arg(), arg(), arg(), arg(), arg()
local fields = read_fields()
local sent = dead .. ':redriven:' .. letter
if #redis.call('XRANGE', dead, letter, letter) == 0 then return redis.call('GET', sent) == token and 1 or 0 end
redis.call('XADD', stream, '*', unpack(fields))
redis.call('SET', sent, token, 'PX', 3600000)
redis.call('DEL', outcome)
redis.call('XDEL', dead, letter)
return 1
