#!lua
-- Guarantees: none of the streams that ranges write weighs more than it may afterwards; no entry is read for it. For
-- whoever reads such a stream outside any group. Reply: what was cut, and why.
for _ = 1, count_of() do guarded(arg(), '', slim) end
return skipped
