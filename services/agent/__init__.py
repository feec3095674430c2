"""Role `agent`: runs beside a range's engine, brings images there and reports the result.

`role` is the agent itself. `pull` and `load` are the two ways to transfer an image, `inspection` finds out whether a
transfer is needed. `stall_watch` and `cancellation` end a transfer that stalls or is cancelled. `services.transfer`
uses the same ways without a bus.
"""

from services.agent.heartbeat_writer import HeartbeatInterval
from services.agent.pull import Patience
from services.agent.role import Agent

__all__ = ["Agent", "HeartbeatInterval", "Patience"]
