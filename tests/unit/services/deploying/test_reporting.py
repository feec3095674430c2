"""The deployers' own count of what nobody wants."""

from __future__ import annotations

import msgspec
import pytest

from bench.world import World, eventually
from events.messages import AgentStarted, ImagesChanged, PresentImage
from events.task_group import TaskGroup
from events.worker import Worker
from services.api.backlog import measure
from services.core.unwanted import UnwantedSummary, summary_key
from services.metrics import REGISTRY
from services.tracker import Tracker

pytestmark = pytest.mark.looptime

TOY = PresentImage(references=("docker.io/library/toy:1",), diff_ids=(), image_id=f"sha256:{'1' * 64}")
STARTED = AgentStarted(
    range_id="hand", engine_id="e", engine_version="28.5.1", store="classic", platform="linux/amd64", images=(TOY,)
)


async def test_images_that_nobody_wants_are_counted_for_the_metrics() -> None:
    """What somebody brought by hand is counted within a round, and no more once it is gone."""
    async with World() as world, TaskGroup() as tasks:
        tracker = Tracker(speaker=world.bus, streams=world.streams)
        running = [tasks.create_task(Worker(world.bus, one).run()) for one in tracker.subscriptions()]
        running.append(tasks.create_task(tracker.run()))

        async def counted(images: int) -> UnwantedSummary | None:
            record = await world.bus.load(summary_key(world.streams.prefix))
            summary = msgspec.json.decode(record.value, type=UnwantedSummary) if record else None
            return summary if summary is not None and summary.images == images else None

        await world.say(world.streams.outbox("hand"), STARTED)
        assert (await eventually(lambda: counted(1), within_seconds=200)).ranges == 1
        await measure(world.bus, world.streams)
        assert REGISTRY.get_sample_value("cyroid_unwanted_images", {"where": "ranges"}) == 1
        await world.say(world.streams.outbox("hand"), ImagesChanged(range_id="hand"))
        assert (await eventually(lambda: counted(0), within_seconds=200)).ranges == 0
        for task in running:
            task.cancel()
