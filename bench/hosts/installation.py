"""An installation of several hosts on a real Redis, over fakes of engines and registry."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.simulation.cluster import eventually
from events.envelope import Envelope
from events.messages import (
    DeploymentEnded,
    DeploymentRequested,
    DeploymentSucceeded,
    ImageBuilt,
    ImagePushed,
    ImagePushFailed,
)
from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layers import MemoryLayers
from services.adapters.memory_registry import MemoryRegistry
from services.adapters.openers import Adapters
from services.core.hosts.hosts import HostKeys
from services.core.images.references import Reference
from services.core.ranges.ranges import RangeKeys
from services.ingest.announcer import Announcer
from services.runtime.host_identity import HostIdentity
from services.runtime.shutdown import Stop
from services.runtime.telemetry import set_up
from services.serving import run
from services.settings import Settings

PREFIX = "hosts"
REGISTRY = "registry:5000"
LIMIT_SECONDS = 300.0
#: Images in one deployment.
TOGETHER = 10


class Installation:
    """`hosts` engines with pushers and tar servers, each with one range; one deployer and tracker for all."""

    def __init__(self, url: str, *, hosts: int, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._streams = Streams(PREFIX)
        self._registry = MemoryRegistry(REGISTRY)
        self._engines = {f"host-{n}": MemoryEngine(engine_id=f"host-{n}") for n in range(hosts)}
        self._ranges = {
            f"range-{n}": MemoryEngine(engine_id=f"range-{n}", registries={REGISTRY: self._registry})
            for n in range(hosts)
        }
        self._wanted: dict[str, str] = {}
        self._stop = Stop()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        set_up(level="error", log_format="json")
        self._bus = await self._stack.enter_async_context(RedisBus.open(self._url, streams=self._streams))
        tasks: list[asyncio.Task[None]] = []

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._stack.push_async_callback(end)
        first = next(iter(self._engines))
        for host in self._engines:
            roles = ["registry-pusher", "tar-server", *(["deployer", "tracker"] if host == first else [])]
            for role in roles:
                tasks.append(asyncio.create_task(self._serve(host, role)))
        for number, range_id in enumerate(self._ranges):
            tasks.append(asyncio.create_task(self._serve(f"host-{number}", "agent", range_id)))
        keys, ranges = HostKeys(PREFIX), RangeKeys(PREFIX)

        async def all_there() -> bool:
            hosts, known = await self._bus.members(keys.all), await self._bus.members(ranges.known_index)
            return len(hosts) == len(self._engines) and len(known) == len(self._ranges)

        await eventually(all_there, within_seconds=60)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _serve(self, host: str, role: str, range_id: str = "") -> None:
        engine = self._engines[host]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        settings = Settings(
            redis_url=self._url,
            key_prefix=PREFIX,
            host_id=host,
            registry_address=REGISTRY,
            tar_listen=f"127.0.0.1:{port}",
            tar_url=f"http://127.0.0.1:{port}",
            spool_folder=str(self._folder / host),
            range_id=range_id,
            auto_push=True,
            drain_seconds=0.0,
        )
        used = self._ranges[range_id] if range_id else engine
        adapters = Adapters(
            bus=lambda _: RedisBus.open(self._url, streams=self._streams),
            engine=lambda _, __: nullcontext(used),
            registry=lambda _: nullcontext(self._registry),
            layer_sources=lambda _, __: [MemoryLayers(engine)],
            host=host,
        )
        await run(settings, [role], self._stop, adapters)

    async def announce(self, images: int) -> None:
        """Of every second name another host has other content: of every fourth, announced a moment before."""
        hosts = list(self._engines)
        for number in range(images):
            reference = f"docker.io/library/image-{number}:1"
            host, other = hosts[number % len(hosts)], hosts[(number + 1) % len(hosts)]
            if number % 2:
                self._engines[other].add_image(reference, [b"base", b"other content %d" % number])
            image = self._engines[host].add_image(reference, [b"base", b"content %d" % number])
            self._wanted[reference] = image.image_id or ""
            if number % 4 == 3:
                await self._announce(other, reference)
            await self._announce(host, reference)

    async def _announce(self, host: str, reference: str) -> None:
        engine = self._engines[host]

        async def opened() -> MemoryEngine:
            return engine

        identity = HostIdentity(chosen=host, folder="", engine=opened)
        announcer = Announcer(
            engine=engine, bus=self._bus, streams=self._streams, source=f"build@{host}", identity=identity
        )
        await announcer.announce(ImageBuilt, reference, origin="bench", push="auto")

    async def pushed(self) -> Counter[str]:
        """Every announcement is followed by a push of that very content."""
        announced, pushed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        failed = 0
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                async for entry in self._bus.tail([self._streams.images], after="0"):
                    message = entry.envelope.message if entry.envelope else None
                    match message:
                        case ImageBuilt():
                            announced[message.reference, message.image_id] += 1
                        case ImagePushed():
                            pushed[message.reference, message.image_id] += 1
                        case ImagePushFailed():
                            failed += 1
                    ended = pushed.total() + failed
                    if announced.total() >= len(self._wanted) and ended >= announced.total():
                        break
        except TimeoutError:
            pass
        lost = announced - pushed
        wrong = sum(count for content, count in pushed.items() if content not in announced)
        return Counter(wrong_content=wrong, lost=max(lost.total() - failed, 0), failed=failed)

    async def deployed(self) -> Counter[str]:
        """Every image arrives, as it was announced last, in a range of another host."""
        names, ranges, asked = list(self._wanted), list(self._ranges), dict[str, tuple[str, tuple[str, ...]]]()
        for start in range(0, len(names), TOGETHER):
            few = tuple(names[start : start + TOGETHER])
            range_id, deployment_id = ranges[(start // TOGETHER) % len(ranges)], f"d-{start}"
            asked[deployment_id] = range_id, few
            request = DeploymentRequested(deployment_id=deployment_id, range_id=range_id, images=few)
            await self._bus.publish(
                self._streams.deployments, Envelope(message=request, source="bench", subject=range_id)
            )
        ends = await self._ends(asked)
        counts = Counter(lost=len(asked) - len(ends), failed=0, wrong_content=0)
        for deployment_id, (range_id, few) in asked.items():
            end = ends.get(deployment_id)
            if end is not None and not isinstance(end, DeploymentSucceeded):
                counts["failed"] += 1
            for reference in few if isinstance(end, DeploymentSucceeded) else ():
                found = await self._ranges[range_id].inspect(str(Reference.parse(reference)))
                counts["wrong_content"] += found is None or found.image_id != self._wanted[reference]
        return counts

    async def _ends(self, asked: dict[str, tuple[str, tuple[str, ...]]]) -> dict[str, DeploymentEnded]:
        ends: dict[str, DeploymentEnded] = {}
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                async for entry in self._bus.tail([self._streams.deployments], after="0"):
                    message = entry.envelope.message if entry.envelope else None
                    if isinstance(message, DeploymentEnded):
                        ends[message.deployment_id] = message
                    if len(ends) == len(asked):
                        break
        except TimeoutError:
            pass
        return ends
