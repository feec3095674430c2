"""A running API over fakes, for the tests of its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from events.task_group import TaskGroup
from services.api.authentication import NoAuthentication
from services.api.events.feed import Feed
from services.api.lists.read import ReadContext
from services.api.route import ApiContext
from services.api.server import application
from services.commands.ingest import IngestJobs, NoIngest
from services.core.archives.entry_rules import ArchiveLimits
from services.ingest.build import BuildService
from services.ingest.importer import Importer
from services.ingest.jobs import EngineIngestJobs
from services.ingest.promote import PromoteService
from services.ingest.work import IngestWork
from services.queries.read_model.mirror import Mirror
from services.tracker.host_scan import HostScanner
from services.tracker.registry_scan import Scanner
from tests.unit.services.twins import STREAMS, Cluster


@dataclass
class Service:
    """A running API and its world."""

    client: TestClient[Any, Any]
    world: Cluster
    context: ApiContext

    @property
    def mirror(self) -> Mirror:
        """The read model that its lists are answered from."""
        return self.context.reads.mirror

    async def look(self) -> None:
        """Bring the read model up to date with streams and records."""
        feed = self.context.feed
        after = {feed.names[name]: entry for name, entry in feed.positions.entries.items()}
        async for entry in self.world.bus.tail(list(after), after=after, follow=False):
            feed.heard(entry)
        await self.mirror.look()

    async def scan(self) -> None:
        """Compare the records with the registry and the engine, as a tracker does, and look at them."""
        bus, prefix = self.world.bus, STREAMS.prefix
        registry = Scanner(bus=bus, registry=self.world.registry, prefix=prefix, clock=_now, every_seconds=0.0)
        host = HostScanner(bus=bus, engine=self.world.engine, prefix=prefix, clock=_now, every_seconds=0.0)
        assert await registry.scan()
        assert await host.scan()
        await self.look()

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.client.get(path) as answer:
            assert answer.status == status, await answer.text()
            if status >= 400 and path not in {"/readyz"}:
                assert answer.content_type == "application/problem+json"
            return await answer.json()

    async def post(self, path: str, body: Any, status: int = 202) -> tuple[Any, str | None]:
        async with self.client.post(path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json(), answer.headers.get("Location")

    async def push(self, name: str, *layers: bytes) -> None:
        """Into the registry, as the host's engine would."""
        full = f"{self.world.registry.address}/library/{name}"
        self.world.engine.add_image(full, layers)
        async with self.world.engine.push(full) as lines:
            assert [line async for line in lines]


def _now() -> datetime:
    return datetime.now(UTC)


#: Of archives and contexts that the tests upload, unpacked.
UPLOAD_LIMIT_BYTES = 8 * 1024 * 1024


def ingest_jobs(cluster: Cluster) -> EngineIngestJobs:
    """Builds, imports and promotes on the cluster's engine."""
    announcer = cluster.announcer()
    limits = ArchiveLimits(unpacked_bytes=UPLOAD_LIMIT_BYTES)
    work = IngestWork(
        build=BuildService(engine=cluster.engine, announcer=announcer, context_limit_bytes=UPLOAD_LIMIT_BYTES),
        importer=Importer(engine=cluster.engine, announcer=announcer, limits=limits),
        promote=PromoteService(engine=cluster.engine, announcer=announcer),
        import_limit_bytes=UPLOAD_LIMIT_BYTES,
    )
    return EngineIngestJobs(bus=cluster.bus, prefix=STREAMS.prefix, work=work)


def api_context(cluster: Cluster, *, engine_networks: str = "", ingest: IngestJobs | None = None) -> ApiContext:
    """The context of an API over a cluster of fakes."""
    mirror = Mirror(bus=cluster.bus, streams=STREAMS)
    feed = Feed(bus=cluster.bus, streams=STREAMS, mirror=mirror)
    return ApiContext(
        bus=cluster.bus,
        streams=STREAMS,
        registry=cluster.registry,
        engine=cluster.engine,
        reads=ReadContext(mirror=mirror, bus=cluster.bus, streams=STREAMS, recent=feed),
        feed=feed,
        source="api@t",
        engine_networks=engine_networks,
        ingest=ingest or NoIngest(),
    )


@asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    """A running API over fakes."""
    world = Cluster()
    context = api_context(world, ingest=ingest_jobs(world))
    server = TestServer(application(context, authenticator=NoAuthentication()))
    async with TaskGroup() as tasks, TestClient(server) as client:
        running = tasks.create_task(context.ingest.run())
        yield Service(client, world, context)
        running.cancel()
