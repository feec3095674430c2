"""The bus in memory: the fake of the Redis bus, which passes the same conformance suite."""
