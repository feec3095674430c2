"""One claim for each range id of an installation."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from events.bus import Outcome
from events.memory.bus import MemoryBus
from events.records import ANY
from services.commands.range_claims import claim_range, claiming, release_range
from services.core.ranges.range_claims import RangeClaim, claim_key
from services.errors import BadInput, NotFound, RangeElsewhere

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def test_the_first_host_has_the_range_until_it_lets_go() -> None:
    """Again and again; the other one is told where it is, and how it can be let go."""
    bus = MemoryBus()
    first, other = (claiming(bus, "p", host=host, clock=lambda: NOW) for host in ("a", "b"))
    assert first is not None
    assert other is not None
    assert await first("r1") == await first("r1")
    with pytest.raises(RangeElsewhere, match=r"on host a since 2030-01-01 00:00:00 UTC.*ranges release r1"):
        await other("r1")
    await release_range(bus, "p", "r1")
    assert (await other("r1")).host == "b"
    with pytest.raises(NotFound):
        await release_range(bus, "p", "none")
    assert claiming(bus, "p", host="", clock=lambda: NOW) is None


async def test_of_two_hosts_at_the_same_moment_one_has_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one sees the claim of the other when its own is refused."""
    bus, commit = MemoryBus(), MemoryBus.commit
    theirs = RangeClaim(range_id="r1", host="b", since=NOW)

    async def raced(self: MemoryBus, outcome: Outcome) -> None:
        monkeypatch.undo()
        await commit(self, Outcome(records=(claim_key("p", "r1").write(theirs, expected=ANY),)))
        await commit(self, outcome)

    monkeypatch.setattr(MemoryBus, "commit", raced)
    with pytest.raises(RangeElsewhere, match="host b"):
        await claim_range(bus, "p", "r1", host="a", now=NOW)


@pytest.mark.parametrize(("range_id", "host"), [("", "a"), ("a b", "a"), ("r1", "*"), ("r" * 129, "a"), ("r1\n", "a")])
async def test_what_cannot_be_an_id_is_not_claimed(range_id: str, host: str) -> None:
    """It would be a part of a key's name."""
    bus = MemoryBus()
    with pytest.raises(BadInput, match="cannot be the id"):
        await claim_range(bus, "p", range_id, host=host, now=NOW)
