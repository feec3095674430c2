"""The bus on Redis: client, Lua scripts, preflight checks."""
