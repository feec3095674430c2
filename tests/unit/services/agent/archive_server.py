"""A running tar server over real HTTP on loopback, beside the scene of an agent."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from events.bus import Outcome
from events.records import ANY
from events.task_group import TaskGroup
from services.adapters.memory_engine import MemoryEngine
from services.core.deployments.offers import Offer, offer_key
from services.core.images.image import EngineImage, Store
from services.errors import LayerUnreadable
from services.ports import Chunks, OpenLayer
from services.tar_server.exports import Exports
from services.tar_server.image_reader import ImageReader
from services.tar_server.role import TarServer
from services.tar_server.spool import SpoolFolder
from tests.unit.services.agent.scene import REFERENCE, Scene

BOTH: list[Store] = ["classic", "containerd"]


@dataclass
class StoreSource:
    """Reads the layers of the host engine's fake. `gate` holds every layer up, `broken` ends it half-way."""

    engine: MemoryEngine
    knows_sizes: bool = True
    name: str = "store"
    gate: asyncio.Event | None = None
    broken: bool = False
    reads: list[str] = field(default_factory=list)

    async def config(self, image: EngineImage) -> bytes:
        return self.engine.config(image.local_id)

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        return len(self.engine.store.layers[diff_id]) if self.knows_sizes else None

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        self.reads.append(diff_id)
        yield self._chunks(self.engine.store.layers[diff_id])

    async def _chunks(self, content: bytes) -> Chunks:
        yield content[:100]
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise LayerUnreadable("the layer's file is gone")
        yield content[100:]


@dataclass
class StreamSource(StoreSource):
    """One stream of all layers, top layer first, without sizes beforehand, as `docker save` is."""

    knows_sizes: bool = False
    passes: int = 0

    @asynccontextmanager
    async def layers(self, image: EngineImage, diff_ids: Sequence[str]) -> AsyncIterator[AsyncIterator[OpenLayer]]:
        self.passes += 1
        yield self._opened(diff_ids)

    async def _opened(self, diff_ids: Sequence[str]) -> AsyncIterator[OpenLayer]:
        for diff_id in reversed(diff_ids):
            content = self.engine.store.layers[diff_id]
            yield OpenLayer(diff_id, len(content), self._chunks(content))


@dataclass
class Server:
    """A running tar server, and what a deployer would do with it."""

    scene: Scene
    source: StoreSource
    folder: SpoolFolder
    url: str = ""

    async def offer(
        self, image: EngineImage, transfer_id: str = "t1", *, lifetime_seconds: float = 60, **more: object
    ) -> tuple[str, str]:
        """Store an offer; its address and token."""
        what: dict[str, object] = {
            "reference": REFERENCE,
            "held": image.diff_ids,
            "layout": "docker" if self.scene.store == "classic" else "oci",
            "now": datetime.now(UTC),
            **more,
        }
        token = secrets.token_urlsafe(32)
        offer = Offer.make(
            token=token,
            transfer_id=transfer_id,
            image_id=image.local_id,
            diff_ids=image.diff_ids,
            lifetime_seconds=lifetime_seconds,
            **what,  # type: ignore[arg-type]
        )
        key = offer_key(self.scene.streams.prefix, transfer_id)
        await self.scene.bus.commit(Outcome(records=(key.write(offer, expected=ANY),)))
        return f"{self.url}/transfers/{transfer_id}", token

    async def offered(self, image: EngineImage, transfer_id: str = "t1", **more: object) -> None:
        """Offer an archive to the agent."""
        url, token = await self.offer(image, transfer_id, **more)  # type: ignore[arg-type]
        await self.scene.say(self.scene.load_offer(image, url, token, transfer_id=transfer_id, **more))

    async def get(self, url: str, token: str | None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            return response.status, await response.read()


@asynccontextmanager
async def serving(
    scene: Scene,
    folder: Path,
    *,
    limit_bytes: int = 1 << 30,
    stall_seconds: float = 5,
    linger_seconds: float = 0.5,
    limit: int = 2,
    patience_seconds: float = 20,
    source: StoreSource | None = None,
    listen: str = "127.0.0.1:0",
) -> AsyncIterator[Server]:
    source = source or StoreSource(scene.host)
    spools = SpoolFolder(folder, limit_bytes=limit_bytes, spare_bytes=0)
    reader = ImageReader(engine=scene.host, sources=[source], registry=scene.registry)
    exports = Exports(
        reader=reader, folder=spools, limit=limit, linger_seconds=linger_seconds, patience_seconds=patience_seconds
    )
    role = TarServer(
        bus=scene.bus,
        prefix=scene.streams.prefix,
        exports=exports,
        listen=listen,
        stall_seconds=stall_seconds,
    )
    async with TaskGroup() as group:
        running = group.create_task(role.run())
        try:
            yield Server(scene, source, spools, f"http://{await role.address()}")
        finally:
            running.cancel()
