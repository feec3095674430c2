"""Claim a range id for a host, and let it go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from events.bus import BusClient, Outcome, RecordConflict
from events.records import ABSENT, ANY
from services.core.hosts.hosts import HOST_ID
from services.core.ranges.range_claims import RangeClaim, claim_key
from services.errors import BadInput, NotFound, RangeElsewhere

_RULE = (
    "it begins with a letter or digit, then come letters, digits, dots, dashes and underscores, at most 128 characters"
)


async def claim_range(bus: BusClient, prefix: str, range_id: str, *, host: str, now: datetime) -> RangeClaim:
    """Claim an id for a host; the claim that there is, where it is this host's.

    Raises BadInput for what cannot be an id, RangeElsewhere, BusError.
    """
    for what, name in (("range", range_id), ("host", host)):
        if not HOST_ID.fullmatch(name):
            raise BadInput(f"{name[:200]!r} cannot be the id of a {what}: {_RULE}")
    key = claim_key(prefix, range_id)
    while True:
        claim = (await key.load(bus)).value
        if claim is None:
            claim = RangeClaim(range_id=range_id, host=host, since=now)
            try:
                await bus.commit(Outcome(records=(key.write(claim, expected=ABSENT),)))
            except RecordConflict:
                continue  # another host claimed it in this very moment
        refusal = claim.refusal(host)
        if refusal is not None:
            raise RangeElsewhere(refusal)
        return claim


def claiming(
    bus: BusClient, prefix: str, *, host: str, clock: Callable[[], datetime]
) -> Callable[[str], Awaitable[RangeClaim]] | None:
    """What claims ranges for one host; None for a host without an id."""

    async def claim(range_id: str) -> RangeClaim:
        return await claim_range(bus, prefix, range_id, host=host, now=clock())

    return claim if host else None


async def release_range(bus: BusClient, prefix: str, range_id: str) -> None:
    """Let an id go, so that a range on another host can have it. Raises NotFound, BusError."""
    key = claim_key(prefix, range_id)
    if (await key.load(bus)).value is None:
        raise NotFound(f"no host has claimed range {range_id}", hint="cyroid-images ranges ls")
    await bus.commit(Outcome(records=(key.delete(expected=ANY),)))
