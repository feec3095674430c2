"""The collector on a real registry and a real Redis, commanded as people command it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from events.bus import IndexWrite, Outcome
from events.envelope import Envelope
from events.lease import Bus
from events.messages import (
    CollectProgress,
    CollectRequested,
    DeletionPlanned,
    ImageDeleted,
    ImageDeleteRefused,
    ImageDeleteRequested,
    Message,
    PushRequested,
)
from events.records import ANY
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker
from services.adapters.registry import HttpRegistry
from services.collector import Collector
from services.collector.cache_probe import PROBE_REPOSITORY, check_no_cache
from services.collector.deletions import file_safe
from services.collector.storage import RegistryStorage
from services.collector.sweep import CollectionPolicy
from services.commands.request_reply import RequestReplyClient
from services.commands.store import collect, delete_image, plan_deletion
from services.core.deployments.plans import Plan, PlanKeys
from services.core.images.manifests import sha256
from services.core.images.read_model import ReadModelKeys
from services.core.images.references import Reference
from services.core.store.deletions import DeletionKeys
from services.core.store.figures import figures_key
from services.core.store.intents import intents_key
from services.errors import BadInput
from services.registry_pusher.intents import AnnouncingRegistry
from tests.integration.collector.test_scrub import cut
from tests.integration.collector.test_sweep import DAY, Store, hexed
from tests.laboratory import Lab, RedisServer, RegistryServer

pytestmark = pytest.mark.real
M = TypeVar("M", bound=Message)


@dataclass
class Site:
    """A collector at work, the bus it listens on, and a store to push to."""

    bus: Bus
    streams: Streams
    store: Store

    @property
    def reference(self) -> str:
        return f"{Reference.from_registry(self.store.name, '1')}"

    @property
    def asking(self) -> RequestReplyClient:
        return RequestReplyClient(bus=self.bus, streams=self.streams, source="test")

    async def say(self, message: Message) -> Envelope:
        envelope = Envelope(message=message, source="test", subject="registry")
        await self.bus.publish(self.streams.images, envelope)
        return envelope

    async def deleted(self, reference: str) -> None:
        """Wait until that tag is told to be deleted."""
        async for entry in self.bus.tail((self.streams.images,), after="0"):
            message = entry.envelope.message if entry.envelope else None
            if isinstance(message, ImageDeleted) and message.reference == reference:
                return

    async def published(self, kind: type[M]) -> list[M]:
        found = [entry async for entry in self.bus.tail((self.streams.images,), after="0", follow=False)]
        return [one.envelope.message for one in found if one.envelope and isinstance(one.envelope.message, kind)]


async def eventually_published(site: Site, cause: str) -> list[Message]:
    """What was published because of one entry, as soon as there is something."""
    async for entry in site.bus.tail((site.streams.images,), after="0"):
        if entry.envelope is not None and entry.envelope.causation_id == cause:
            return [entry.envelope.message]
    raise AssertionError("a tail that follows does not end")


@asynccontextmanager
async def collecting(
    redis: RedisServer, registry: RegistryServer, clock: Callable[[], float] = time.time
) -> AsyncIterator[Site]:
    streams = Streams(f"collector-{uuid.uuid4().hex}")
    async with (
        RedisBus.open(redis.url, streams=streams) as bus,
        HttpRegistry.open(registry.url, address=registry.address) as client,
    ):
        collector = Collector(
            bus=bus,
            streams=streams,
            source="collector@test",
            storage=RegistryStorage(registry.storage),
            registry=client,
            policy=CollectionPolicy(),
            period_seconds=0,
            scrub_bytes_per_second=0,
            clock=clock,
        )
        async with TaskGroup() as tasks:
            running = [tasks.create_task(Worker(bus, one).run()) for one in collector.subscriptions()]
            yield Site(bus, streams, Store(client, registry.storage))
            for task in running:
                task.cancel()


async def test_a_deleted_tag_is_gone_at_once_and_says_what_it_frees(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """Only what no other tag needs counts as freed."""
    async with collecting(redis_server, registry_server) as site:
        shared, own = os.urandom(2000), os.urandom(3000)
        manifest = await site.store.push("1", shared, own)
        await site.store.push("2", shared)
        answer = await delete_image(site.bus, site.streams, site.reference, source="test")
        assert isinstance(answer, ImageDeleted)
        assert answer.manifest_digest == manifest.digest
        assert answer.freed_bytes == 3000 + manifest.body.config.size + len(manifest.content)
        assert await site.store.registry.manifest(site.store.name, "1") is None
        again = await delete_image(site.bus, site.streams, site.reference, source="test")
        assert isinstance(again, ImageDeleteRefused)
        assert again.error.code == "not_found"


async def test_a_deletion_whose_collector_was_killed_is_still_told(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """The tag went, the answer did not: whoever takes the command over finds that it was this command's doing,
    and leaves the tag that was pushed since."""
    async with collecting(redis_server, registry_server) as site:
        manifest = await site.store.push("1", os.urandom(100))
        asked = Envelope(message=ImageDeleteRequested(reference=site.reference), source="test", subject="x")
        killed = file_safe(asked.id)
        assert site.store.storage.delete_tag(site.store.name, "1", hexed(manifest.digest), command_id=killed)
        again = await site.store.push("1", os.urandom(100))
        await site.bus.publish(site.streams.images, asked)
        (deleted,) = await eventually_published(site, asked.id)
        assert isinstance(deleted, ImageDeleted)
        assert deleted.manifest_digest == manifest.digest
        assert (await site.store.registry.manifest(site.store.name, "1") or (None, None))[1] == again


async def test_what_was_set_aside_a_moment_ago_is_not_freed_by_now(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """`--now` leaves the time in which a PUT that hangs may still end."""
    async with collecting(redis_server, registry_server) as site:
        blob = await site.store.put(os.urandom(100))
        assert site.store.storage.quarantine(hexed(blob.digest), time.time())
        ended = await collect(site.bus, site.streams, CollectRequested(keep_seconds=0.0), source="test")
        assert ended.error is None
        assert site.store.storage.blob(hexed(blob.digest)).quarantined_bytes == 100 or site.store.there(blob.digest)


async def test_an_image_that_a_plan_needs_is_deleted_by_force_alone(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """The refusal names who needs it."""
    async with collecting(redis_server, registry_server) as site:
        await site.store.push("1", os.urandom(100))
        keys = PlanKeys(site.streams.prefix)
        plan = Plan(plan_id="p-1", images=(site.reference,), announced_at=datetime.now(UTC))
        write = keys.record("p-1").write(plan, expected=ANY)
        await site.bus.commit(Outcome(records=(write,), index=(IndexWrite(keys.all, "p-1", 1.0),)))
        refused = await delete_image(site.bus, site.streams, site.reference, source="test")
        assert isinstance(refused, ImageDeleteRefused)
        assert refused.error.code == "in_use"
        assert "plan p-1" in refused.error.message
        assert await site.store.registry.manifest(site.store.name, "1") is not None
        forced = await delete_image(site.bus, site.streams, site.reference, source="test", force=True)
        assert isinstance(forced, ImageDeleted)


async def test_a_dry_run_of_a_deletion_names_siblings_and_users(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """Nothing is deleted; bytes count what no other tag needs, of a digest what all its tags need."""
    async with collecting(redis_server, registry_server) as site:
        manifest = await site.store.push("1", os.urandom(3000))
        await site.store.registry.put_manifest(site.store.name, "latest", manifest)
        holders = ReadModelKeys(site.streams.prefix).holders(manifest.body.config.digest)
        await site.bus.commit(Outcome(index=(IndexWrite(holders, "range-7", 1.0),)))
        plan = await plan_deletion(site.bus, site.streams, site.reference, source="test")
        assert isinstance(plan, DeletionPlanned)
        assert (plan.tags, plan.siblings, plan.held_by) == (("1",), ("latest",), ("range-7",))
        assert (plan.freed_now_bytes, plan.freed_later_bytes) == (0, 0)
        whole = f"{site.reference.rpartition(':')[0]}@{manifest.digest}"
        both = await plan_deletion(site.bus, site.streams, whole, source="test")
        assert isinstance(both, DeletionPlanned)
        assert (both.tags, both.siblings) == (("1", "latest"), ())
        assert both.freed_later_bytes == 3000 + manifest.body.config.size + len(manifest.content)
        assert await site.store.registry.manifest(site.store.name, "1") is not None


async def test_a_digest_is_deleted_with_all_its_tags_and_the_freed_bytes_are_told(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """`collected` is false at first; once a collection has freed the bytes the event comes again, with as many."""
    later = [0.0]
    async with collecting(redis_server, registry_server, lambda: time.time() + later[0]) as site:
        manifest = await site.store.push("1", os.urandom(3000))
        await site.store.registry.put_manifest(site.store.name, "latest", manifest)
        whole = f"{site.reference.rpartition(':')[0]}@{manifest.digest}"
        deleted = await delete_image(site.bus, site.streams, whole, source="test")
        assert isinstance(deleted, ImageDeleted)
        assert (deleted.tags, deleted.collected) == (("1", "latest"), False)
        told = [one.reference for one in await site.published(ImageDeleted)]
        assert sorted(told) == sorted([whole, site.reference, site.reference.replace(":1", ":latest")])
        for _ in range(8):
            later[0] += 2 * DAY
            await collect(site.bus, site.streams, CollectRequested(), source="test")
        (over,) = [one for one in await site.published(ImageDeleted) if one.collected]
        assert (over.reference, over.tags) == (whole, ("1", "latest"))
        assert over.freed_bytes == deleted.freed_bytes > 3000
        assert await site.bus.members(DeletionKeys(site.streams.prefix).all) == []


async def test_a_registry_with_a_blob_cache_is_refused(redis_server: RedisServer, lab: Lab) -> None:
    """It would go on promising what was collected; the error says what to change, and nothing was set aside."""
    server = lab.registry(f"cached-{uuid.uuid4().hex[:8]}", cache=True)
    async with collecting(redis_server, server, lambda: time.time() + 9 * DAY) as site:
        blob = await site.store.put(os.urandom(100))
        for _ in range(2):
            ended = await collect(site.bus, site.streams, CollectRequested(), source="test")
            assert ended.error is not None
            assert ended.error.code == "registry_has_cache"
        assert site.store.there(blob.digest)
    server.terminate()
    server.join()


async def test_the_probe_leaves_nothing(redis_server: RedisServer, registry_server: RegistryServer) -> None:
    """Neither a repository nor a blob; a folder that is not the registry's storage is told."""
    async with collecting(redis_server, registry_server) as site:
        assert (await collect(site.bus, site.streams, CollectRequested(), source="test")).error is None
        assert not (site.store.storage.repositories / PROBE_REPOSITORY).exists()
        assert PROBE_REPOSITORY not in [name async for name in site.store.registry.repositories()]


async def test_a_storage_of_another_registry_is_refused(
    redis_server: RedisServer, registry_server: RegistryServer, tmp_path: Path
) -> None:
    """A collection of one registry's files by another one's answers would be wrong in every step."""
    async with HttpRegistry.open(registry_server.url, address=registry_server.address) as registry:
        with pytest.raises(BadInput, match="is not the storage of the registry"):
            await check_no_cache(registry, RegistryStorage(tmp_path))


async def test_a_collection_measures_the_store_and_repairs_what_was_cut(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """Figures are a record that anybody may read; an image that lost a layer is asked for again, also where somebody
    removed the file."""
    async with collecting(redis_server, registry_server) as site:
        layer, other = os.urandom(4000), os.urandom(3000)
        await site.store.push("1", layer)
        await site.store.push("2", other)
        cut(site.store.storage.folder(hexed(sha256(layer))) / "data")
        (site.store.storage.folder(hexed(sha256(other))) / "data").unlink()
        ended = await collect(site.bus, site.streams, CollectRequested(), source="test")
        assert {sha256(layer), sha256(other)} <= set(ended.damaged)
        asked_for = {one.reference for one in await site.published(PushRequested)}
        assert {site.reference, str(Reference.from_registry(site.store.name, "2"))} <= asked_for
        figures = (await figures_key(site.streams.prefix).load(site.bus)).value
        assert figures is not None
        files = sum(path.stat().st_size for path in registry_server.storage.glob("docker/**/blobs/sha256/*/*/data"))
        assert figures.stored_bytes == files
        assert figures.referenced_bytes + figures.collectable_bytes == files


async def test_a_dry_run_says_what_would_go(redis_server: RedisServer, registry_server: RegistryServer) -> None:
    """What is younger than the grace would not."""
    async with collecting(redis_server, registry_server) as site:
        blob = await site.store.put(os.urandom(100))
        ended = await collect(site.bus, site.streams, CollectRequested(dry_run=True), source="test")
        assert ended.dry_run
        assert ended.quarantined == ended.removed == 0
        assert site.store.there(blob.digest)


async def test_a_push_announces_a_digest_before_it_asks_for_it(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """Once for each digest; what was announced has a time after which it lapses."""
    async with collecting(redis_server, registry_server) as site:
        registry = AnnouncingRegistry(site.store.registry, bus=site.bus, prefix=site.streams.prefix)
        digest = sha256(os.urandom(8))
        assert await registry.blob_size(site.store.name, digest) is None
        assert await site.bus.members(intents_key(site.streams.prefix), low=datetime.now(UTC).timestamp()) == [digest]


async def test_a_collection_tells_how_far_it_is(redis_server: RedisServer, registry_server: RegistryServer) -> None:
    """On the stream of progress, under the command's id."""
    async with collecting(redis_server, registry_server) as site:
        await site.store.push("1", os.urandom(1000))
        asked = await site.say(CollectRequested(scrub=True))
        await eventually_published(site, asked.id)
        found = [entry async for entry in site.bus.tail((site.streams.progress,), after="0", follow=False)]
        said = [entry.envelope.message for entry in found if entry.envelope is not None]
        steps = [one for one in said if isinstance(one, CollectProgress)]
        assert {one.collection_id for one in steps} == {asked.id}
        assert steps[0].phase == "marking"
        assert steps[-1].phase == "measuring"
        assert steps[-1].total > 0
