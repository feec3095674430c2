"""Retention on a real registry: deletions follow from rules, and never of what somebody needs."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from events.bus import IndexWrite, Outcome
from events.messages import RetentionRequested, RetentionVerdict
from events.records import ANY
from services.commands.store import RetentionView, retention
from services.core.deployments.plans import Plan, PlanKeys
from services.core.images.read_model import ImageUse, ReadModelKeys
from services.core.store.retention import RetentionRule, RetentionRules, retention_key
from tests.integration.collector.test_role import Site, collecting
from tests.integration.collector.test_sweep import DAY
from tests.laboratory import RedisServer, RegistryServer

pytestmark = pytest.mark.real


async def set_rule(site: Site, **rule: float) -> None:
    chosen = RetentionRules(rules=(RetentionRule(pattern=f"*{site.store.name}:*", **rule),))  # type: ignore[arg-type]  # any limit
    write = retention_key(site.streams.prefix).write(chosen, expected=ANY)
    await site.bus.commit(Outcome(records=(write,)))


async def applied(site: Site, *, dry_run: bool = False) -> RetentionView:
    return await retention(site.asking, RetentionRequested(dry_run=dry_run))


def of(site: Site, view: RetentionView) -> dict[str, RetentionVerdict]:
    """Verdicts on this test's own tags."""
    name = site.reference.rpartition(":")[0]
    found = {one.reference.rpartition(":"): one for one in view.verdicts}
    return {tag: one for (repository, _, tag), one in found.items() if repository == name}


async def test_a_dry_run_tells_reasons_and_deletes_nothing(
    redis_server: RedisServer, registry_server: RegistryServer
) -> None:
    """Another repository has no rule, so it is kept."""
    async with collecting(redis_server, registry_server) as site:
        for tag in ("1", "2", "3"):
            await site.store.push(tag, os.urandom(1000))
        await set_rule(site, keep_last=2)
        told = of(site, await applied(site, dry_run=True))
        assert {tag: one.keep for tag, one in told.items()} == {"1": False, "2": True, "3": True}
        assert told["1"].reason == "number 3 in its repository, 2 are kept"
        assert told["1"].freed_bytes > 1000
        assert await site.store.registry.manifest(site.store.name, "1") is not None


async def test_rules_delete_what_nobody_needs(redis_server: RedisServer, registry_server: RegistryServer) -> None:
    """What a plan names stays, what was deployed lately stays, the rest is deleted as by hand."""
    async with collecting(redis_server, registry_server, lambda: time.time() + 40 * DAY) as site:
        for tag in ("1", "2", "3"):
            await site.store.push(tag, os.urandom(1000))
        name = site.reference.rpartition(":")[0]
        plans, plan = PlanKeys(site.streams.prefix), Plan(plan_id="p", images=(f"{name}:2",), announced_at=NOW)
        use = ImageUse(reference=f"{name}:3", deployed_at=datetime.fromtimestamp(time.time() + 39 * DAY, UTC))
        records = (
            plans.record("p").write(plan, expected=ANY),
            ReadModelKeys(site.streams.prefix).use(use.reference).write(use, expected=ANY),
        )
        await site.bus.commit(Outcome(records=records, index=(IndexWrite(plans.all, "p", 1.0),)))
        await set_rule(site, keep_days=30.0)
        told = of(site, await applied(site))
        assert [tag for tag, one in told.items() if not one.keep] == ["1"]
        await site.deleted(f"{name}:1")
        assert await site.store.registry.manifest(site.store.name, "1") is None
        assert await site.store.registry.manifest(site.store.name, "2") is not None
        assert await site.store.registry.manifest(site.store.name, "3") is not None


async def test_a_pull_counts_as_use(redis_server: RedisServer, registry_server: RegistryServer) -> None:
    """Whoever reads an image's config pulls it; the time is that of the file's last access."""
    async with collecting(redis_server, registry_server) as site:
        manifest = await site.store.push("1", os.urandom(1000))
        config = manifest.body.config.digest.removeprefix("sha256:")
        data = site.store.storage.folder(config) / "data"
        os.utime(data, (time.time() - 9 * DAY, time.time() - 9 * DAY))
        before = site.store.storage.read_at(config)
        site.store.storage.is_intact(config)
        assert site.store.storage.read_at(config) == before  # the collector's own reading leaves no trace
        async with site.store.registry.open_blob(site.store.name, manifest.body.config.digest) as chunks:
            assert [chunk async for chunk in chunks]
        assert site.store.storage.read_at(config) > before + 8 * DAY


NOW = datetime(2026, 1, 31, tzinfo=UTC)
