"""A host engine, a registry, Redis, a range's engine, the agent and the tar server, all real."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from events.bus import Outcome
from events.envelope import Envelope
from events.messages import (
    ImageFailed,
    ImagePushed,
    ImageReady,
    LoadOffered,
    Message,
    PullRequested,
    TarRequested,
)
from events.records import ANY
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.engine import DockerEngine
from services.adapters.layer_sources import layer_sources
from services.adapters.registry import HttpRegistry
from services.agent import Agent, HeartbeatInterval, Patience
from services.core.deployments.offers import Offer, offer_key
from services.core.images.encodings import CodecSetting
from services.core.images.image import EngineImage
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from services.tar_server.exports import Exports
from services.tar_server.image_reader import ImageReader
from services.tar_server.role import TarServer
from services.tar_server.spool import SpoolFolder

Answer = ImageReady | ImageFailed | TarRequested
RANGE = "range-1"
MEGABYTE = 1024 * 1024


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait, within a bound, for something to become true."""
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@dataclass(kw_only=True)
class Site:
    """What the tests act on; `engine` is the range's. The test is the deployer."""

    bus: RedisBus
    streams: Streams
    host: DockerEngine
    host_root: Path | None
    engine: DockerEngine
    engine_url: str
    registry: HttpRegistry
    spool: SpoolFolder
    tar_url: str = ""
    exports_read: list[str] = field(default_factory=list)

    async def push(self, reference: str, *, layer_codec: CodecSetting = "raw") -> ImagePushed:
        """Into the registry, layer by layer."""

        async def all_read_zstd() -> bool:
            return True

        sources = layer_sources(self.host, engine_root=self.host_root)
        encodings = LayerEncodings(bus=self.bus, prefix=self.streams.prefix)
        push = ImagePush(
            engine=self.host,
            registry=self.registry,
            sources=sources,
            layers=LayerPush(
                registry=self.registry,
                sources=sources,
                encodings=encodings,
                layer_codec=layer_codec,
                all_read_zstd=all_read_zstd,
            ),
            engine_registry=self.registry.address,
        )
        return await push.push(reference)

    def pull_request(
        self, pushed: ImagePushed, transfer_id: str = "t1", *, address: str | None = None
    ) -> PullRequested:
        """As the deployer writes it. `address`: of the registry as the range reaches it."""
        return PullRequested(
            transfer_id=transfer_id,
            reference=pushed.reference,
            image_id=pushed.image_id,
            diff_ids=tuple(layer.diff_id for layer in pushed.layers),
            source=f"{address or self.registry.address}/{pushed.repository}@{pushed.manifest_digest}",
            layers=pushed.layers,
            total_bytes=sum(layer.size_bytes for layer in pushed.layers),
        )

    def tar_request(self, image: EngineImage, reference: str, transfer_id: str = "t1") -> PullRequested:
        """A request where the registry is known to be away."""
        assert image.image_id is not None
        return PullRequested(
            transfer_id=transfer_id, reference=reference, image_id=image.image_id, diff_ids=image.diff_ids
        )

    async def offer(self, request: PullRequested, asked: TarRequested, *, url: str | None = None) -> LoadOffered:
        """The answer to a range that asked for a tar, stored and ready to be said."""
        present = asked.diff_ids if asked.thin else ()
        held = tuple(diff_id for diff_id in dict.fromkeys(request.diff_ids) if diff_id not in present)
        token = secrets.token_urlsafe(32)
        offer = Offer.make(
            token=token,
            transfer_id=request.transfer_id,
            reference=request.reference,
            image_id=request.image_id,
            diff_ids=request.diff_ids,
            held=held,
            layout=asked.layout,
            now=datetime.now(UTC),
            lifetime_seconds=60,
            range_id=RANGE,
            layers=tuple(layer for layer in request.layers if layer.diff_id not in asked.raw),
        )
        write = offer_key(self.streams.prefix, offer.transfer_id).write(offer, expected=ANY)
        await self.bus.commit(Outcome(records=(write,)))
        return LoadOffered(
            transfer_id=offer.transfer_id,
            reference=offer.reference,
            image_id=offer.image_id,
            url=f"{url or self.tar_url}/transfers/{offer.transfer_id}",
            token=token,
            diff_ids=offer.diff_ids,
            held=held,
            layout=asked.layout,
        )

    async def say(self, *messages: Message) -> None:
        inbox = self.streams.inbox(RANGE)
        await self.bus.publish(
            inbox, *(Envelope(message=one, source="deployer@test", subject=RANGE) for one in messages)
        )

    async def answer(self, transfer_id: str = "t1", *, skip: int = 0, seconds: float = 60) -> Answer:
        """The agent's word on a transfer, the one after `skip` earlier ones."""
        async with asyncio.timeout(seconds):
            async for entry in self.bus.tail([self.streams.outbox(RANGE)], after="0"):
                message = entry.envelope.message if entry.envelope else None
                if isinstance(message, Answer) and message.transfer_id == transfer_id:
                    if not skip:
                        return message
                    skip -= 1
        raise AssertionError("the outbox ended")

    async def ready(self, transfer_id: str = "t1", *, skip: int = 0, seconds: float = 60) -> ImageReady:
        answer = await self.answer(transfer_id, skip=skip, seconds=seconds)
        assert isinstance(answer, ImageReady), answer
        return answer

    async def asks_for_tar(self, transfer_id: str = "t1", *, skip: int = 0) -> TarRequested:
        answer = await self.answer(transfer_id, skip=skip)
        assert isinstance(answer, TarRequested), answer
        return answer

    @asynccontextmanager
    async def agent(self, patience: Patience | None = None, *, lease_seconds: float = 5) -> AsyncIterator[Agent]:
        """The agent at work inside."""
        agent = Agent(
            range_id=RANGE,
            engine=self.engine,
            bus=self.bus,
            streams=self.streams,
            lease_seconds=lease_seconds,
            patience=patience,
            pulse=HeartbeatInterval(beat_seconds=0.5),
        )
        async with TaskGroup() as group:
            tasks = [group.create_task(Worker(self.bus, one).run()) for one in agent.subscriptions()]
            tasks.append(group.create_task(agent.run()))
            try:
                yield agent
            finally:
                for task in tasks:
                    task.cancel()

    @asynccontextmanager
    async def tar_server(self, *, stall_seconds: float = 20) -> AsyncIterator[None]:
        """The tar server at work inside."""
        reader = ImageReader(
            engine=self.host,
            sources=layer_sources(self.host, engine_root=self.host_root),
            registry=self.registry,
        )
        role = TarServer(
            bus=self.bus,
            prefix=self.streams.prefix,
            exports=Exports(reader=reader, folder=self.spool, limit=2, linger_seconds=0.2),
            listen="127.0.0.1:0",
            stall_seconds=stall_seconds,
        )
        async with TaskGroup() as group:
            running = group.create_task(role.run())
            try:
                self.tar_url = f"http://{await role.address()}"
                yield
            finally:
                running.cancel()

    async def assert_named_alone(self, reference: str, image_id: str) -> EngineImage:
        """The range has the content under its own name and nothing of the registry's."""
        found = await self.engine.inspect(reference)
        assert found is not None
        if found.image_id is not None:
            assert found.image_id == image_id
        assert found.references == (reference,)
        assert [name for name in found.repo_digests if self.registry.address in name] == []
        return found

    def files(self, reference: str, paths: Sequence[str]) -> dict[str, bytes]:
        """Files of an image as a container in the range has them."""
        docker = ["docker", "-H", self.engine_url]
        made = subprocess.run([*docker, "create", reference, "true"], check=True, capture_output=True)
        container = made.stdout.decode().strip()
        try:
            return {path: self._file(docker, container, path) for path in paths}
        finally:
            subprocess.run([*docker, "rm", container], check=True, capture_output=True)

    def _file(self, docker: Sequence[str], container: str, path: str) -> bytes:
        copied = subprocess.run([*docker, "cp", f"{container}:{path}", "-"], check=True, capture_output=True).stdout
        return copied[512 : 512 + int(copied[124:135], 8)]
