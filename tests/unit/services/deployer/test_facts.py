"""What is found out about a range."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from events.bus import Outcome
from events.memory.bus import MemoryBus
from events.messages import Layer
from events.records import ANY
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.deployments.deployment import Deployment, ImageState, State
from services.core.deployments.facts import AgentFacts
from services.core.images.encodings import LayerEncoding
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from services.core.ranges.ranges import KnownRange, RangeKeys
from services.deployer.facts import FactFinder
from services.deployer.liveness import Liveness
from services.registry_pusher.host_look import HostLook
from services.registry_pusher.layer_encodings import LayerEncodings
from tests.images import config_of
from tests.unit.services.twins import chunks

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STREAMS = Streams("test")
DEPLOYMENT = Deployment(
    deployment_id="d1", range_id="r1", state="running", asked=(), images=(), requested_at=NOW, correlation_id="c"
)
KNOWN = KnownRange(
    range_id="r1", engine_id="e1", engine_version="27", store="classic", platform="linux/arm64", started_at=NOW
)


class CountingRegistry(MemoryRegistry):
    """A registry that counts how often it is asked for a manifest."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def manifest(self, repository: str, reference: str) -> tuple[Descriptor, Manifest] | None:
        self.asked += 1
        return await super().manifest(repository, reference)


def finder(bus: MemoryBus, registry: MemoryRegistry | None = None) -> FactFinder:
    return FactFinder(
        bus=bus,
        hosts=HostLook(MemoryEngine()),
        registry=registry or MemoryRegistry(),
        streams=STREAMS,
        liveness=Liveness(bus=bus, stream=STREAMS.progress, clock=lambda: NOW),
        clock=lambda: NOW,
    )


async def put(registry: MemoryRegistry, layer: bytes) -> str:
    """An image of that layer under the name that is looked for; its id."""
    config = config_of([sha256(layer)], architecture="arm64")
    for content in (layer, config):
        await registry.put_blob("library/app", sha256(content), len(content), chunks(content))
    manifest = Manifest.write(
        Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config)),
        (Descriptor(media_type=OCI_LAYER, digest=sha256(layer), size=len(layer)),),
    )
    await registry.put_manifest("library/app", "1", manifest)
    return sha256(config)


def looking(state: State, *, since: datetime) -> Deployment:
    image = ImageState(reference="docker.io/library/app:1", state=state, since=since)
    return msgspec.structs.replace(DEPLOYMENT, images=(image,))


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


async def image_id(finder: FactFinder, deployment: Deployment) -> str | None:
    """What the registry has, as a look for the deployment's image finds it."""
    registry = (await finder.facts(deployment, (0,), agent_is_up=True)).images[0].registry
    return registry.image_id if registry is not None else None


async def test_the_registry_is_asked_once_for_all_who_began_before() -> None:
    """A deployment to a thousand ranges asks a thousand times for the same images."""
    registry = CountingRegistry()
    found, looks = await put(registry, b"app"), finder(MemoryBus(), registry)
    before = looking("resolving", since=NOW - timedelta(seconds=1))
    assert [await image_id(looks, before) for _ in range(3)] == [found] * 3
    assert registry.asked == 1
    found = await put(registry, b"new app")
    assert await image_id(looks, looking("resolving", since=NOW)) == found  # asked for after the first look


async def test_what_was_pushed_is_seen_at_once() -> None:
    """An image that waits for its push is looked for anew, whatever the registry had under its name just now."""
    registry = CountingRegistry()
    await put(registry, b"app")
    looks, since = finder(MemoryBus(), registry), NOW - timedelta(seconds=1)
    await image_id(looks, looking("resolving", since=since))
    found = await put(registry, b"new app")
    assert await image_id(looks, looking("pushing", since=since)) == found


async def test_what_the_registry_lacked_is_asked_again() -> None:
    """It may have it by now."""
    registry = CountingRegistry()
    looks, since = finder(MemoryBus(), registry), NOW - timedelta(seconds=1)
    assert await image_id(looks, looking("resolving", since=since)) is None
    found = await put(registry, b"app")
    assert await image_id(looks, looking("resolving", since=since)) == found
