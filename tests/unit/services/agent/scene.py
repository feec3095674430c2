"""A host, a registry, a range and its agent, all in memory; what the agent's tests are played on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import (
    ImageFailed,
    ImageReady,
    Layer,
    LoadOffered,
    Message,
    PullRequested,
    TarRequested,
    TransferProgress,
)
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.agent import Agent
from services.agent.heartbeat_writer import HeartbeatInterval
from services.agent.pull import Patience
from services.core.images.image import EngineImage, Store
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest
from services.ports import LayerPlacer

REGISTRY = "registry:5000"
RANGE = "range-7"
REFERENCE = "docker.io/library/web:1"
BASE, TOOLS, APP = b"base" * 20000, b"tools" * 4000, b"app" * 3000
Answer = ImageReady | ImageFailed | TarRequested


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait, ten seconds at most, for something to become true."""
    async with asyncio.timeout(10):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await asyncio.sleep(0.01)


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    yield content


@dataclass
class Scene:
    """`store` is the range engine's. The host has what `build` made, the registry what `publish` put there."""

    store: Store = "classic"
    bus: MemoryBus = field(default_factory=MemoryBus)
    streams: Streams = field(default_factory=lambda: Streams("test"))
    registry: MemoryRegistry = field(default_factory=lambda: MemoryRegistry(REGISTRY))
    host: MemoryEngine = field(default_factory=MemoryEngine)
    engine: MemoryEngine = field(init=False)
    placer: LayerPlacer | None = None

    def __post_init__(self) -> None:
        self.engine = MemoryEngine(registries={REGISTRY: self.registry}, store=self.store)

    def build(self, *layers: bytes, reference: str = REFERENCE, **config: object) -> EngineImage:
        return self.host.add_image(reference, layers, **config)

    async def publish(self, image: EngineImage, repository: str = "library/web") -> tuple[str, tuple[Layer, ...]]:
        """Put an image into the registry; its source for a range's engine, and its layers."""
        config = self.host.config(image.local_id)
        for digest, content in [(one, self.host.store.layers[one]) for one in image.diff_ids]:
            await self.registry.put_blob(repository, digest, len(content), chunks_of(content))
        await self.registry.put_blob(repository, image.local_id, len(config), chunks_of(config))
        sizes = {one: len(self.host.store.layers[one]) for one in image.diff_ids}
        manifest = Manifest.write(
            Descriptor(media_type=OCI_CONFIG, digest=image.local_id, size=len(config)),
            tuple(Descriptor(media_type=OCI_LAYER, digest=one, size=sizes[one]) for one in image.diff_ids),
        )
        await self.registry.put_manifest(repository, "1", manifest)
        layers = tuple(Layer(digest=one, diff_id=one, size_bytes=sizes[one]) for one in image.diff_ids)
        return f"{REGISTRY}/{repository}@{manifest.digest}", layers

    async def pull_request(self, image: EngineImage, transfer_id: str = "t1", **more: object) -> PullRequested:
        """As the deployer would send it for an image that the registry has."""
        source, layers = await self.publish(image)
        return self.request(image, transfer_id, source=source, layers=layers, **more)

    def request(self, image: EngineImage, transfer_id: str = "t1", **more: object) -> PullRequested:
        known: Mapping[str, object] = {"reference": REFERENCE, **more}
        return PullRequested(transfer_id=transfer_id, image_id=image.local_id, diff_ids=image.diff_ids, **known)  # type: ignore[arg-type]

    async def say(self, message: Message) -> None:
        await self.bus.publish(
            self.streams.inbox(RANGE), Envelope(message=message, source="deployer@test", subject=RANGE)
        )

    async def answer(self, transfer_id: str = "t1", *, skip: int = 0) -> Answer:
        """The agent's word on a transfer, the one after `skip` earlier ones."""
        async with asyncio.timeout(10):
            async for entry in self.bus.tail([self.streams.outbox(RANGE)], after="0"):
                message = entry.envelope.message if entry.envelope else None
                if isinstance(message, Answer) and message.transfer_id == transfer_id:
                    if not skip:
                        return message
                    skip -= 1
        raise AssertionError("the outbox ended")

    async def told(self, transfer_id: str = "t1") -> list[TransferProgress]:
        """What was told of a transfer's progress, oldest first."""
        entries = self.bus.tail([self.streams.range_progress(RANGE)], after="0", follow=False)
        said = [entry.envelope.message async for entry in entries if entry.envelope]
        return [one for one in said if isinstance(one, TransferProgress) and one.transfer_id == transfer_id]

    def agent(self, patience: Patience | None = None) -> Agent:
        return Agent(
            range_id=RANGE,
            engine=self.engine,
            bus=self.bus,
            streams=self.streams,
            lease_seconds=4,
            patience=patience,
            pulse=HeartbeatInterval(beat_seconds=0.05, answer_seconds=1, identify_seconds=0.1),
            placer=self.placer,
        )

    @asynccontextmanager
    async def listening(self, patience: Patience | None = None) -> AsyncIterator[Agent]:
        """The agent at work inside, its heart included."""
        agent = self.agent(patience)
        workers = [Worker(self.bus, subscription) for subscription in agent.subscriptions()]
        async with TaskGroup() as group:
            tasks = [group.create_task(worker.run()) for worker in workers]
            tasks.append(group.create_task(agent.run()))
            try:
                yield agent
            finally:
                for task in tasks:
                    task.cancel()

    def load_offer(self, image: EngineImage, url: str, token: str, **more: object) -> LoadOffered:
        known: Mapping[str, object] = {
            "transfer_id": "t1",
            "reference": REFERENCE,
            "held": image.diff_ids,
            "layout": "docker" if self.store == "classic" else "oci",
            **more,
        }
        return LoadOffered(
            image_id=image.local_id,
            diff_ids=image.diff_ids,
            url=url,
            token=token,
            **known,  # type: ignore[arg-type]
        )
