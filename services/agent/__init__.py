"""The program beside a range's engine: it brings images there and says what became of it.

`role` is the agent itself; `pulling` and `loading` are the two ways an image can come, `looking` finds out whether it
has to; `stalls` and `cancelling` end what stands still or is no longer wanted. `services.transfer` uses the same ways
without a bus.
"""

from services.agent.pulling import Patience
from services.agent.role import Agent, Pulse

__all__ = ["Agent", "Patience", "Pulse"]
