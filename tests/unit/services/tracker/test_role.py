"""The tracker, over the bus in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import (
    AgentStarted,
    DeploymentFailed,
    DeploymentSucceeded,
    Failure,
    ImageDeleted,
    ImageOutcome,
    ImagePushed,
    ImagesChanged,
    Layer,
    Message,
    PresentImage,
    TransferProgress,
)
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.read_model import RangeInventory, ReadModelKeys, RegistryEntry
from services.tracker.role import Tracker
from tests.simulation import eventually

pytestmark = pytest.mark.faked_time

STREAMS, KEYS = Streams("cyroid"), ReadModelKeys("cyroid")
APP = "docker.io/library/app:1"
ONE, TWO, LAYER = (f"sha256:{digit * 64}" for digit in "12a")


@asynccontextmanager
async def tracked() -> AsyncIterator[MemoryBus]:
    """A bus on which a tracker listens. No fixture: those are made in a time of their own."""
    bus = MemoryBus()
    tracker = Tracker(bus=bus, streams=STREAMS, registry=MemoryRegistry(), engine=MemoryEngine())
    async with TaskGroup() as tasks:
        running = [tasks.create_task(Worker(bus, one).run()) for one in tracker.subscriptions()]
        running.append(tasks.create_task(tracker.run()))
        yield bus
        for task in running:
            task.cancel()


async def say(bus: MemoryBus, stream: str, message: Message) -> None:
    await bus.publish(stream, Envelope(message=message, source="somebody", subject="something"))


async def holdings(bus: MemoryBus, range_id: str) -> RangeInventory | None:
    return (await KEYS.holdings(range_id).load(bus)).value


def pushed() -> ImagePushed:
    layer = Layer(digest=LAYER, diff_id=LAYER, size_bytes=7)
    return ImagePushed(
        reference=APP, repository="library/app", tag="1", manifest_digest=TWO, image_id=ONE, layers=(layer, layer)
    )


async def test_a_pushed_image_is_listed_until_it_is_deleted() -> None:
    """The registry's images are readable by reference, with their size."""
    async with tracked() as bus:
        await say(bus, STREAMS.images, pushed())
        record = await eventually(lambda: bus.load(KEYS.image(APP).name), within_seconds=10)
        entry = msgspec.json.decode(record.value, type=RegistryEntry)
        assert (entry.image_id, entry.layers, entry.size_bytes) == (ONE, 2, 14)
        assert await bus.members(KEYS.images) == [APP]
        await say(bus, STREAMS.images, ImageDeleted(reference=APP, manifest_digest=TWO))

        async def gone() -> bool:
            return await bus.load(KEYS.image(APP).name) is None and await bus.members(KEYS.images) == []

        assert await eventually(gone, within_seconds=10)


async def test_what_a_collection_freed_later_takes_no_image_off_the_list() -> None:
    """The tag may have been pushed again between the deletion and the collection."""
    async with tracked() as bus:
        await say(bus, STREAMS.images, pushed())
        await eventually(lambda: bus.load(KEYS.image(APP).name), within_seconds=10)
        await say(bus, STREAMS.images, ImageDeleted(reference=APP, manifest_digest=TWO, collected=True))

        async def handled() -> bool:
            (group,) = await bus.groups([STREAMS.images])
            return group.pending == 0 and group.lag == 0

        assert await eventually(handled, within_seconds=10)
        assert await bus.members(KEYS.images) == [APP]


async def test_the_time_of_an_images_last_deployment_is_kept() -> None:
    """Retention reads it; an image that did not arrive was not used."""
    async with tracked() as bus:
        arrived = ImageOutcome(reference=APP, image_id=TWO, how="pulled")
        failed = ImageOutcome(reference="b:1", error=Failure(code="stalled", message="silence"))
        ended = DeploymentFailed(deployment_id="d", range_id="r7", images=(arrived, failed), error=failed.error)
        await say(bus, STREAMS.deployments, ended)
        assert await eventually(lambda: bus.load(KEYS.use(APP).name), within_seconds=10) is not None
        assert await bus.load(KEYS.use("b:1").name) is None


async def test_a_range_has_what_it_announced_and_what_arrived() -> None:
    """An agent's announcement is all there is; what a deployment brought is added, what it failed to bring is not."""
    async with tracked() as bus:
        started = AgentStarted(
            range_id="r7",
            engine_id="e1",
            engine_version="26.1.5",
            store="classic",
            platform="linux/amd64",
            images=(PresentImage(references=("a:1",), diff_ids=(LAYER,), image_id=ONE),),
        )
        await say(bus, STREAMS.outbox("r7"), started)
        assert await eventually(lambda: bus.members(KEYS.holders(ONE)), within_seconds=10) == ["r7"]
        arrived = ImageOutcome(reference=APP, image_id=TWO, how="pulled")
        failed = ImageOutcome(reference="b:1", error=Failure(code="stalled", message="silence"))
        ended = DeploymentFailed(deployment_id="d1", range_id="r7", images=(arrived, failed))
        await say(bus, STREAMS.deployments, ended)
        assert await eventually(lambda: bus.members(KEYS.holders(TWO)), within_seconds=10) == ["r7"]
        held = await holdings(bus, "r7")
        assert held is not None
        assert held.images == {"a:1": ONE, APP: TWO}
        await say(bus, STREAMS.outbox("r7"), msgspec.structs.replace(started, images=(), engine_id="e2"))

        async def empty() -> bool:
            return await bus.members(KEYS.holders(ONE)) == [] and await bus.members(KEYS.holders(TWO)) == []

        assert await eventually(empty, within_seconds=10)


async def test_what_arrived_later_stays_though_it_was_told_earlier() -> None:
    """A deployment that ends last need not have brought the content that came last."""
    async with tracked() as bus:
        noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
        for deployment_id, image_id, minute in (("d2", TWO, 5), ("d1", ONE, 0)):
            arrived = ImageOutcome(
                reference=APP, image_id=image_id, how="pulled", ready_at=noon + timedelta(minutes=minute)
            )
            other = ImageOutcome(reference=f"{deployment_id}:1", image_id=LAYER, how="pulled", ready_at=noon)
            ended = DeploymentSucceeded(deployment_id=deployment_id, range_id="r7", images=(arrived, other))
            await say(bus, STREAMS.deployments, ended)

        async def both() -> RangeInventory | None:
            held = await holdings(bus, "r7")
            return held if held is not None and {"d1:1", "d2:1"} <= held.images.keys() else None

        assert (await eventually(both, within_seconds=10)).images[APP] == TWO


async def test_the_latest_list_of_a_range_counts() -> None:
    """What its agent saw later replaces what was there, images without a name included; an older list says nothing."""
    async with tracked() as bus:
        stream, at = STREAMS.outbox("r7"), datetime(2026, 1, 2, tzinfo=UTC)
        unnamed = PresentImage(references=(), diff_ids=(LAYER,), image_id=TWO, size_bytes=3)
        named = PresentImage(references=("a:1",), diff_ids=(LAYER,), image_id=ONE, size_bytes=7)
        later = ImagesChanged(range_id="r7", images=(named, unnamed))
        for message, time in ((later, at), (ImagesChanged(range_id="r7"), at - timedelta(seconds=1))):
            before = await holdings(bus, "r7")
            await bus.publish(stream, Envelope(message=message, source="agent@r7", subject="r7", time=time))

            async def heard(before: RangeInventory | None = before) -> RangeInventory | None:
                now = await holdings(bus, "r7")
                return now if now is not None and now != before else None

            held = await eventually(heard, within_seconds=10)
            assert (held.images, held.sizes) == ({"a:1": ONE}, {"a:1": 7})
            assert (held.unnamed, held.listed_at) == ((unnamed,), at)
        arrived = ImageOutcome(reference="a:1", image_id=TWO, how="pulled")
        await say(bus, STREAMS.deployments, DeploymentSucceeded(deployment_id="d1", range_id="r7", images=(arrived,)))

        async def moved_on() -> bool:
            now = await holdings(bus, "r7")
            return now is not None and now.images == {"a:1": TWO} and now.sizes == {} and now.unnamed == (unnamed,)

        assert await eventually(moved_on, within_seconds=10)


async def test_progress_of_ranges_is_copied_as_theirs_and_nothing_else() -> None:
    """Pulls and loads come through under the range's own id; a push, or a transfer nobody made, does not."""
    async with tracked() as bus:
        told = TransferProgress(transfer_id="d1.0.1", reference=APP, kind="pull", phase="downloading", range_id="r8")
        await say(bus, STREAMS.images, pushed())
        await eventually(lambda: bus.load(KEYS.image(APP).name), within_seconds=10)
        await say(bus, STREAMS.outbox("r7"), ImageDeleted(reference=APP, manifest_digest=TWO))
        stream = STREAMS.range_progress("r7")
        await say(bus, stream, msgspec.structs.replace(told, kind="push"))
        await say(bus, stream, msgspec.structs.replace(told, transfer_id="whatever"))
        await say(bus, stream, told)

        async def copied() -> list[Message]:
            entries = bus.tail([STREAMS.progress], after="0", follow=False)
            return [entry.envelope.message async for entry in entries if entry.envelope]

        assert await eventually(copied, within_seconds=10) == [msgspec.structs.replace(told, range_id="r7")]
