"""The bus of a range's agent: through the range gateway, without an account in Redis.

`protocol` defines the requests, `frames` the framing, `link` is the agent's connection, `bus` the port
`events.lease.Bus` on that connection. The other end is the role `range-gateway` (`services.range_gateway`).
"""

from events.gateway.bus import GatewayBus

__all__ = ["GatewayBus"]
