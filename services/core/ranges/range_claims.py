"""Claim of a range id: an installation has each id once, on the host that claimed it first.

    {prefix}:range-host:<range_id>      RangeClaim

A range gateway claims the id of each range that connects to it, an agent pool that of each engine it drives, and the
deployer for an agent that says where it runs and has no gateway. It stays until the range is forgotten or released.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from events.records import Key


class RangeClaim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which host has the range of this id, and since when."""

    range_id: str
    host: str
    since: datetime

    def refusal(self, host: str) -> str | None:
        """Why a range of this id on `host` is another range; None if it is this one."""
        if host == self.host:
            return None
        return (
            f"range {self.range_id} is on host {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC, so it cannot be on"
            f" {host} too: choose another id, or let it go: cyroid-images ranges release {self.range_id}"
        )


def claim_key(prefix: str, range_id: str) -> Key[RangeClaim]:
    """Where the claim of a range id is stored."""
    return Key(f"{prefix}:range-host:{range_id}", RangeClaim)
