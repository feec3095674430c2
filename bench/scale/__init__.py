"""The case `scale`: a model of how long a class of ranges takes on many hosts."""
