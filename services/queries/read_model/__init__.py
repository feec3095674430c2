"""The read model in memory: a mirror of its records, from which every list is answered without a call to anybody."""
