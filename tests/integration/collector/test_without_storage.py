"""The collector without a storage folder, on a real registry and a real Redis: all of it through the API."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from events.bus import IndexWrite, Outcome
from events.messages import CollectRequested, ImageDeleteRequested, RestoreRequested, RetentionRequested
from events.records import ANY
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker
from services.adapters.registry import HttpRegistry
from services.collector.without_storage import ApiCollector
from services.commands.store import collection, deletion, restoration, retention
from services.core.deployments.plans import Plan, PlanKeys
from services.core.images.manifests import sha256
from services.core.images.read_model import ReadModelKeys, RegistryEntry
from services.core.store.figures import figures_key
from services.core.store.retention import RetentionRule, RetentionRules, retention_key
from services.errors import BadInput
from tests.integration.collector.test_role import Site
from tests.integration.collector.test_sweep import DAY, Store
from tests.laboratory import Lab, RedisServer, RegistryServer

pytestmark = pytest.mark.real


@pytest.fixture
def server(lab: Lab, unique: str) -> Iterator[RegistryServer]:
    """A registry of its own."""
    server = lab.registry(f"hidden-{unique}")
    yield server
    server.stop()


@pytest.fixture
async def site(server: RegistryServer, redis_server: RedisServer) -> AsyncIterator[Site]:
    """The collector knows nothing of the registry's storage."""
    streams = Streams(f"hidden-{uuid.uuid4().hex}")
    async with RedisBus.open(redis_server.url, streams=streams) as bus, HttpRegistry.open(server.url) as registry:
        role = ApiCollector(bus=bus, streams=streams, source="collector@test", registry=registry, period_seconds=0)
        async with TaskGroup() as tasks:
            running = [tasks.create_task(Worker(bus, one).run()) for one in role.subscriptions()]
            yield Site(bus, streams, Store(registry, Path("/nonexistent")))
            for task in running:
                task.cancel()


async def tags(site: Site) -> list[str]:
    return await site.store.registry.tags(site.store.name)


async def test_a_tag_goes_and_its_siblings_stay(site: Site) -> None:
    """Though the registry can only delete by digest; the answer says what a collection of its own would free."""
    layer = os.urandom(1000)
    manifest = await site.store.push("1", layer)
    await site.store.registry.put_manifest(site.store.name, "2", manifest)
    planned = await deletion(site.asking, ImageDeleteRequested(reference=site.reference, dry_run=True))
    assert (planned.tags, planned.siblings, planned.freed_later_bytes) == (("1",), ("2",), 0)
    assert (await deletion(site.asking, ImageDeleteRequested(reference=site.reference))).deleted
    assert await tags(site) == ["2"]
    there = await site.store.registry.manifest(site.store.name, "2")
    assert there is not None
    assert there[1].digest == manifest.digest
    name = site.reference.rpartition(":")[0]
    last = await deletion(site.asking, ImageDeleteRequested(reference=f"{name}:2"))
    assert last.freed_later_bytes > len(layer)
    assert await tags(site) == []
    with pytest.raises(BadInput, match="no such tag"):
        await deletion(site.asking, ImageDeleteRequested(reference=f"{name}:2"))


async def test_every_tag_of_a_digest_goes(site: Site) -> None:
    """Unless somebody needs one of them."""
    manifest = await site.store.push("1", os.urandom(1000))
    await site.store.registry.put_manifest(site.store.name, "2", manifest)
    name = site.reference.rpartition(":")[0]
    plans, plan = (
        PlanKeys(site.streams.prefix),
        Plan(plan_id="p", images=(f"{name}:2",), announced_at=datetime.now(UTC)),
    )
    record = plans.record("p").write(plan, expected=ANY)
    await site.bus.commit(Outcome(records=(record,), index=(IndexWrite(plans.all, "p", 1.0),)))
    command = ImageDeleteRequested(reference=f"{name}@{manifest.digest}")
    with pytest.raises(BadInput, match="plan p"):
        await deletion(site.asking, command)
    forced = ImageDeleteRequested(reference=f"{name}@{manifest.digest}", force=True)
    assert (await deletion(site.asking, forced)).tags == ("1", "2")
    assert await tags(site) == []


async def test_the_figures_are_those_of_what_tags_name(site: Site) -> None:
    """Each blob once, and what sharing saves; they say that they are the API's."""
    shared = os.urandom(1000)
    first = await site.store.push("1", shared, os.urandom(10))
    second = await site.store.push("2", shared, os.urandom(20))
    await collection(site.asking, CollectRequested(dry_run=True))
    figures = (await figures_key(site.streams.prefix).load(site.bus)).value
    assert figures is not None
    manifests = [first, second]
    stored = {sha256(one.content): len(one.content) for one in manifests}
    for one in manifests:
        stored |= {blob.digest: blob.size for blob in (one.body.config, *one.body.layers)}
    assert (figures.tags, figures.stored_bytes, figures.by_api) == (2, sum(stored.values()), True)
    assert figures.saved_bytes >= len(shared)


async def test_what_needs_the_files_is_refused_with_what_to_do(site: Site) -> None:
    """A collection and a restore: the registry's own command does it in a maintenance window."""
    with pytest.raises(BadInput, match="garbage-collect"):
        await collection(site.asking, CollectRequested())
    with pytest.raises(BadInput, match="garbage-collect"):
        await restoration(site.asking, RestoreRequested(digests=(sha256(b"x"),)))


async def test_retention_goes_by_pushes_and_deployments(site: Site) -> None:
    """What the read model does not know counts as new."""
    name = site.reference.rpartition(":")[0]
    keys = ReadModelKeys(site.streams.prefix)
    for tag in ("old", "foreign"):
        await site.store.push(tag, os.urandom(100))
    entry = RegistryEntry(
        reference=f"{name}:old",
        repository=site.store.name,
        tag="old",
        manifest_digest=sha256(b"m"),
        image_id=sha256(b"c"),
        layers=1,
        size_bytes=100,
        pushed_at=datetime.fromtimestamp(time.time() - 40 * DAY, UTC),
    )
    rules = RetentionRules(rules=(RetentionRule(pattern="*", keep_days=30.0),))
    records = (
        keys.image(entry.reference).write(entry, expected=ANY),
        retention_key(site.streams.prefix).write(rules, expected=ANY),
    )
    await site.bus.commit(Outcome(records=records))
    told = await retention(site.asking, RetentionRequested())
    assert [(one.reference, one.keep) for one in told.verdicts] == [(f"{name}:old", False)]
    await site.deleted(f"{name}:old")
    assert await tags(site) == ["foreign"]


async def test_the_registrys_own_command_frees_what_was_deleted(site: Site, server: RegistryServer) -> None:
    """In a maintenance window: nobody pushes, and the registry is started anew. What a tag names stays."""
    gone, kept = await site.store.push("1", os.urandom(1000)), await site.store.push("2", os.urandom(1000))
    assert (await deletion(site.asking, ImageDeleteRequested(reference=site.reference))).deleted
    server.stop()
    program = server.command()[0]
    command = [program, "garbage-collect", "--delete-untagged", str(server.folder / "config.yml")]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    await asyncio.to_thread(server.start)
    registry, name = site.store.registry, site.store.name
    assert await registry.blob_size(name, gone.body.layers[0].digest) is None
    assert await registry.blob_size(name, kept.body.layers[0].digest) is not None
