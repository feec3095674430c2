"""Answer of a host that was asked what its engine has under a name (`host.look_requested.v1`).

{prefix}:host:<host>:look:<look id>     LookAnswer, expires (`Streams.host_look`)
"""

from __future__ import annotations

import msgspec

from events.malformed import MALFORMED
from services.core.hosts.held_images import HeldImage

#: An answer that nobody fetched is gone after this time.
KEPT_SECONDS = 60.0


class LookAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the engine has, None for nothing. `away` says why the engine could not tell."""

    found: HeldImage | None = None
    away: str = ""

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def read(cls, value: bytes | None) -> LookAnswer | None:
        """None where there is no answer that can be read."""
        try:
            return None if value is None else msgspec.json.decode(value, type=cls)
        except MALFORMED:
            return None
