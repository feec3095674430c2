"""What is found out about a range."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from events.bus import Outcome, RecordWrite
from events.memory import MemoryBus
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.deployment import AgentFacts, Deployment
from services.core.ranges import KnownRange, RangeKeys
from services.deploying.facts import Finder
from services.deploying.signs import Signs

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STREAMS = Streams("test")
DEPLOYMENT = Deployment(
    deployment_id="d1", range_id="r1", state="running", asked=(), images=(), requested_at=NOW, correlation_id="c"
)
KNOWN = KnownRange(
    range_id="r1", engine_id="e1", engine_version="27", store="classic", platform="linux/arm64", started_at=NOW
)


async def found(bus: MemoryBus) -> AgentFacts:
    finder = Finder(
        speaker=bus,
        engine=MemoryEngine(),
        registry=MemoryRegistry(),
        streams=STREAMS,
        signs=Signs(speaker=bus, stream=STREAMS.progress, clock=lambda: NOW),
    )
    return (await finder.facts(DEPLOYMENT, (), agent_is_up=False)).agent


async def test_a_range_that_never_said_a_word_is_told_apart() -> None:
    """Neither a heartbeat nor a record: nobody knows it."""
    assert await found(MemoryBus()) == AgentFacts(alive=False, known=False)


@pytest.mark.parametrize(("beating", "platform"), [("e1", "linux/arm64"), ("e2", None)])
async def test_what_a_range_runs_is_known_of_the_engine_that_said_it(beating: str, platform: str | None) -> None:
    """A new engine beats before it announces itself: what the one before it ran says nothing of it."""
    bus = MemoryBus()
    write = RecordWrite(RangeKeys(STREAMS.prefix).known("r1"), msgspec.json.encode(KNOWN))
    await bus.commit(Outcome(records=(write,)))
    await bus.beat(STREAMS.alive("r1"), msgspec.json.encode({"engine_id": beating}), 60.0)
    assert await found(bus) == AgentFacts(alive=True, engine_id=beating, platform=platform)
