"""Role `range-gateway`: a gateway between the agents of ranges and Redis."""

from services.range_gateway.role import RangeGateway

__all__ = ["RangeGateway"]
