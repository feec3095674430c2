"""The deployers' own count of what nobody wants."""

from __future__ import annotations

import pytest

from events.messages import AgentStarted, ImagesChanged, PresentImage
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.api.backlog import measure
from services.core.ranges.unreferenced import UnreferencedSummary, summary_key
from services.runtime.metrics import REGISTRY
from services.tracker.role import Tracker
from tests.simulation import Cluster, eventually

pytestmark = pytest.mark.faked_time

TOY = PresentImage(references=("docker.io/library/toy:1",), diff_ids=(), image_id=f"sha256:{'1' * 64}")
STARTED = AgentStarted(
    range_id="hand", engine_id="e", engine_version="28.5.1", store="classic", platform="linux/amd64", images=(TOY,)
)


async def test_images_that_nobody_wants_are_counted_for_the_metrics() -> None:
    """What somebody brought by hand is counted within a round, and no more once it is gone."""
    async with Cluster() as world, TaskGroup() as tasks:
        tracker = Tracker(bus=world.bus, streams=world.streams, registry=MemoryRegistry(), engine=MemoryEngine())
        running = [tasks.create_task(Worker(world.bus, one).run()) for one in tracker.subscriptions()]
        running.append(tasks.create_task(tracker.run()))

        async def counted(images: int) -> UnreferencedSummary | None:
            summary = (await summary_key(world.streams.prefix).load(world.bus)).value
            return summary if summary is not None and summary.images == images else None

        await world.say(world.streams.outbox("hand"), STARTED)
        assert (await eventually(lambda: counted(1), within_seconds=200)).ranges == 1
        await measure(world.bus, world.streams, ["hand"])
        assert REGISTRY.get_sample_value("cyroid_unwanted_images", {"where": "ranges"}) == 1
        await world.say(world.streams.outbox("hand"), ImagesChanged(range_id="hand"))
        assert (await eventually(lambda: counted(0), within_seconds=200)).ranges == 0
        for task in running:
            task.cancel()
