"""The beats of one agent, and what it notices of another one under its range's id."""

from __future__ import annotations

from events.memory.bus import MemoryBus
from services.agent.heartbeat_writer import SOON_SECONDS, HeartbeatInterval, HeartbeatWriter
from services.core.images.image import EngineInfo
from services.core.ranges.heartbeat import AgentHeartbeat

KEY = "test:range:r1:alive"


def _info(engine_id: str) -> EngineInfo:
    return EngineInfo(
        engine_id=engine_id, version="28.5.2", api_version="1.51", platform="linux/amd64", store="classic", root="/"
    )


def _writer(bus: MemoryBus) -> HeartbeatWriter:
    return HeartbeatWriter(bus, KEY, range_id="r1", lasts_seconds=60.0)


async def _found(bus: MemoryBus) -> AgentHeartbeat:
    (value,) = await bus.beats([KEY])
    found = AgentHeartbeat.read(value)
    assert found is not None
    return found


async def test_a_beat_in_place_of_ones_own_is_told_with_the_engine() -> None:
    """From the second beat on; the first one finds what an earlier life left."""
    bus = MemoryBus()
    first, second = _writer(bus), _writer(bus)
    await first.beat(_info("one"))
    await second.beat(_info("two"))
    assert (await _found(bus)).displaced_by == ""
    await first.beat(_info("one"))
    assert (await _found(bus)).displaced_by == "two"
    await second.beat(_info("two"))
    assert (await _found(bus)).displaced_by == "one"


async def test_two_agents_on_one_engine_say_nothing() -> None:
    """They do each other no harm; nor does an engine that is another one now."""
    bus = MemoryBus()
    first, second = _writer(bus), _writer(bus)
    for engine in ("one", "one", "another"):
        for writer in (first, second):
            assert not await writer.beat(_info(engine)) or engine == "another"
            if engine == "one":
                assert (await _found(bus)).displaced_by == ""


async def test_the_range_is_announced_again_once_the_other_agent_is_gone() -> None:
    """After some beats of its own in a row, once: the services may hold the other engine for the range's."""
    bus = MemoryBus()
    first, second = _writer(bus), _writer(bus)
    await first.beat(_info("one"))
    await second.beat(_info("two"))
    said = [await first.beat(_info("one")) for _ in range(8)]
    assert said.count(True) == 1
    assert said.index(True) == 4


def test_an_engine_that_just_went_away_is_asked_again_soon() -> None:
    """And less and less often, down to the ordinary beat."""
    pulse = HeartbeatInterval(beat_seconds=5.0)
    assert [pulse.pause_seconds(away) for away in (None, 0.0, 0.5, 20.0, 3600.0)] == [
        5.0,
        SOON_SECONDS,
        SOON_SECONDS,
        2.0,
        5.0,
    ]
