"""How far each group is behind, as gauges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from events.bus import IndexWrite, Outcome
from events.dead_letters import dead_letters
from events.envelope import Envelope
from events.lease import DeadLetterReason, Holder
from events.memory.bus import MemoryBus
from events.messages import PushRequested
from events.streams import Streams
from services.api.backlog import measure, measure_ranges
from services.core.hosts.hosts import HostKeys
from services.runtime.metrics import REGISTRY

STREAMS = Streams("backlog")
HOLDER = Holder("deployer", "one", 10.0)
RANGES = ("r1", "r2")


def gauge(state: str) -> float | None:
    return REGISTRY.get_sample_value(
        "cyroid_group_oldest_seconds", {"stream": "images", "group": HOLDER.group, "state": state}
    )


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are looked at a hundred seconds after they came."""
    now = (datetime.now(UTC) + timedelta(seconds=100)).timestamp()
    monkeypatch.setattr("events.memory.bus.time.time", lambda: now)


async def _two_entries() -> MemoryBus:
    bus = MemoryBus()
    for subject in ("a", "b"):
        envelope = Envelope(message=PushRequested(reference=subject), source="test", subject=subject)
        await bus.publish(STREAMS.images, envelope)
    return bus


async def test_the_oldest_entry_that_is_under_way_has_an_age(request: pytest.FixtureRequest) -> None:
    """state="unacked" grows from the moment the entry came, and falls to nothing when it is finished."""
    bus = await _two_entries()
    leases = (await bus.take(HOLDER, [STREAMS.images], 2)).leases
    request.getfixturevalue("old")
    await measure(bus, STREAMS, RANGES)
    assert gauge("unacked") == pytest.approx(100, abs=5)
    assert gauge("undelivered") == 0
    for lease in leases:
        await bus.finish(lease, Outcome())
    await measure(bus, STREAMS, RANGES)
    assert gauge("unacked") == 0


async def test_the_oldest_entry_that_nobody_was_given_has_an_age(request: pytest.FixtureRequest) -> None:
    """state="undelivered" grows while a group reads nothing."""
    bus = await _two_entries()
    await bus.take(HOLDER, [STREAMS.images], 0)
    request.getfixturevalue("old")
    await measure(bus, STREAMS, RANGES)
    assert gauge("undelivered") == pytest.approx(100, abs=5)
    assert gauge("unacked") == 0


async def test_a_group_that_is_gone_is_told_no_more() -> None:
    """After a flush, the last numbers of a group that does not come back would be an alarm for ever."""
    bus = await _two_entries()
    await bus.take(HOLDER, [STREAMS.images], 0)
    await measure(bus, STREAMS, RANGES)
    assert gauge("undelivered") is not None
    await measure(MemoryBus(), STREAMS, RANGES)
    assert gauge("undelivered") is None


async def test_an_inbox_that_nobody_reads_is_seen() -> None:
    """All ranges' inboxes are one stream: an agent that is stuck shows like a service that is."""
    bus, inbox = MemoryBus(), STREAMS.inbox("r1")
    await bus.publish(inbox, Envelope(message=PushRequested(reference="a"), source="test", subject="a"))
    await bus.take(HOLDER, [inbox, STREAMS.inbox("r2")], 0)
    await measure(bus, STREAMS, RANGES)
    labels = {"stream": "inbox", "group": HOLDER.group, "state": "lag"}
    assert REGISTRY.get_sample_value("cyroid_group_entries", labels) == 1


async def test_dead_letters_that_lie_there_are_counted() -> None:
    """Until somebody drops them; those of all ranges together."""
    bus = MemoryBus()
    for stream in (STREAMS.dead, STREAMS.range_dead("r1"), STREAMS.range_dead("r2")):
        said = Envelope(message=PushRequested(reference="a"), source="test", subject="a")
        await bus.publish(STREAMS.images, said)
        (lease,) = (await bus.take(HOLDER, [STREAMS.images], 1)).leases
        await bus.dead_letter(lease, DeadLetterReason(stream, "permanent", "no", "t"), Outcome())

    async def counted(stream: str) -> float | None:
        await measure(bus, STREAMS, RANGES)
        return REGISTRY.get_sample_value("cyroid_dead_letters", {"stream": stream})

    assert (await counted("dead"), await counted("range_dead")) == (1, 2)
    (letter,) = await dead_letters(bus, STREAMS.dead)
    await bus.drop(STREAMS.dead, letter.letter_id)
    assert await counted("dead") == 0


async def test_a_group_that_is_not_ours_makes_no_series() -> None:
    """Whoever may write a stream may make twenty thousand groups there."""
    bus, inbox = MemoryBus(), STREAMS.inbox("r1")
    await bus.publish(inbox, Envelope(message=PushRequested(reference="a"), source="test", subject="a"))
    await bus.take(Holder("made-up", "one", 10.0), [inbox], 0)
    await measure(bus, STREAMS, RANGES)
    labels = {"stream": "inbox", "group": "made-up", "state": "lag"}
    assert REGISTRY.get_sample_value("cyroid_group_entries", labels) is None


async def test_hosts_that_are_there_and_away_are_counted() -> None:
    """By their heartbeats."""
    bus = MemoryBus()
    index = tuple(IndexWrite(HostKeys(STREAMS.prefix).all, host, 1.0) for host in "abc")
    await bus.commit(Outcome(index=index))
    await bus.beat(STREAMS.host_alive("b"), b"{}", 60.0)
    await measure(bus, STREAMS, RANGES)
    found = {state: REGISTRY.get_sample_value("cyroid_hosts", {"state": state}) for state in ("alive", "away")}
    assert found == {"alive": 1, "away": 2}


async def test_a_role_that_nobody_serves_any_more_is_seen() -> None:
    """For a day: one that was taken out on purpose is forgotten then."""
    bus, now = MemoryBus(), datetime.now(UTC)
    long_ago = now - timedelta(days=2)
    index = f"{STREAMS.prefix}:index:roles"
    await bus.commit(
        Outcome(
            index=(
                IndexWrite(index, "tracker:h.1", (now - timedelta(hours=1)).timestamp()),
                IndexWrite(index, "api:h.1", long_ago.timestamp()),
            )
        )
    )
    await measure(bus, STREAMS, RANGES)
    found = [REGISTRY.get_sample_value("cyroid_role_processes", {"role": role}) for role in ("tracker", "api")]
    assert found == [0, None]


def test_ranges_are_counted_by_their_agents() -> None:
    """A state that no range is in is none."""
    measure_ranges({"alive": 2, "unreadable": 1})
    states = ("alive", "away", "unreadable")
    assert [REGISTRY.get_sample_value("cyroid_ranges", {"agent": state}) for state in states] == [2, 0, 1]
