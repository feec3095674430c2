"""What is found out about a range."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from events.bus import Outcome
from events.memory.bus import MemoryBus
from events.messages import Layer
from events.records import ANY
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.facts import AgentFacts
from services.core.images.encodings import LayerEncoding
from services.core.images.manifests import sha256
from services.core.ranges.ranges import KnownRange, RangeKeys
from services.deployer.facts import FactFinder
from services.deployer.liveness import Liveness
from services.registry_pusher.host_look import HostLook
from services.registry_pusher.layer_encodings import LayerEncodings

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STREAMS = Streams("test")
DEPLOYMENT = Deployment(
    deployment_id="d1", range_id="r1", state="running", asked=(), images=(), requested_at=NOW, correlation_id="c"
)
KNOWN = KnownRange(
    range_id="r1", engine_id="e1", engine_version="27", store="classic", platform="linux/arm64", started_at=NOW
)


def finder(bus: MemoryBus) -> FactFinder:
    return FactFinder(
        bus=bus,
        hosts=HostLook(MemoryEngine()),
        registry=MemoryRegistry(),
        streams=STREAMS,
        liveness=Liveness(bus=bus, stream=STREAMS.progress, clock=lambda: NOW),
    )


async def found(bus: MemoryBus) -> AgentFacts:
    return (await finder(bus).facts(DEPLOYMENT, (), agent_is_up=False)).agent


async def test_a_range_that_never_said_a_word_is_told_apart() -> None:
    """Neither a heartbeat nor a record: nobody knows it."""
    assert await found(MemoryBus()) == AgentFacts(alive=False, known=False)


@pytest.mark.parametrize(("beating", "platform"), [("e1", "linux/arm64"), ("e2", None)])
async def test_what_a_range_runs_is_known_of_the_engine_that_said_it(beating: str, platform: str | None) -> None:
    """A new engine beats before it announces itself: what the one before it ran says nothing of it."""
    bus = MemoryBus()
    write = RangeKeys(STREAMS.prefix).known("r1").write(KNOWN, expected=ANY)
    await bus.commit(Outcome(records=(write,)))
    await bus.beat(STREAMS.alive("r1"), msgspec.json.encode({"engine_id": beating}), 60.0)
    assert await found(bus) == AgentFacts(alive=True, engine_id=beating, platform=platform)


async def test_without_the_registry_layers_are_named_by_their_remembered_forms() -> None:
    """An engine that pulled them compressed knows them so; of one that is kept raw nothing has to be said."""
    bus, packed, plain = MemoryBus(), sha256(b"packed layer"), sha256(b"plain layer")
    encodings = LayerEncodings(bus=bus, prefix=STREAMS.prefix)
    await encodings.fix(packed, LayerEncoding(codec="gzip", digest=sha256(b"blob"), size_bytes=4, repository="app"))
    await encodings.fix(plain, LayerEncoding())
    image = ImageState(reference="docker.io/library/app:1", state="loading", since=NOW, diff_ids=(plain, packed))
    blobs = await finder(bus).blobs(image)
    assert blobs == (Layer(digest=sha256(b"blob"), diff_id=packed, size_bytes=4, codec="gzip"),)
