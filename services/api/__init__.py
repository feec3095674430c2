"""The HTTP API: what people and other services ask, answered from the registry, the engine and the bus.

role      the role `api`: starts the server
app       routes and what they need
problems  errors as application/problem+json (RFC 9457)
"""
