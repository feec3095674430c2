"""Where the outside begins: engines, registry, Redis. Each adapter has an in-memory twin that passes the same suite."""
