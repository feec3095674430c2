"""The layer-mounter, over the bus in memory and the fake of the kernel's mounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from events.bus import IndexWrite, Outcome
from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import (
    AgentStarted,
    Layer,
    LayersMounted,
    LayersReleased,
    Message,
    MountFailed,
    MountRequested,
    PresentImage,
    TransferProgress,
    UnmountRequested,
)
from events.records import ANY
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.memory_layer_mounts import MemoryLayerMounts
from services.collector.pins import mounted_digests
from services.core.mounts.pins import MountKeys
from services.core.ranges.ranges import DesiredImage, DesiredImages, KnownRange, RangeKeys
from services.layer_mounter import LayerMounter
from tests.simulation import eventually

pytestmark = pytest.mark.faked_time

STREAMS, KEYS = Streams("cyroid"), RangeKeys("cyroid")
ONE, TWO = (
    Layer(digest=f"sha256:{digit * 64}", diff_id=f"sha256:{digit * 64}", size_bytes=1024) for digit in ("a", "b")
)


@dataclass
class Host:
    """A bus with a layer-mounter, and what it mounts."""

    bus: MemoryBus
    mounts: MemoryLayerMounts

    async def publish(self, stream: str, message: Message) -> None:
        await self.bus.publish(stream, Envelope(message=message, source="somebody", subject="something"))

    async def mount(self, transfer_id: str, *layers: Layer, engine_id: str = "e-1") -> Message:
        """Ask for layers of range r-1; the answer."""
        request = MountRequested(transfer_id=transfer_id, range_id="r-1", layers=layers, engine_id=engine_id)
        await self.publish(STREAMS.host_inbox("local"), request)
        async for entry in self.bus.tail([STREAMS.deployer], after={STREAMS.deployer: "0"}):
            message = entry.envelope.message if entry.envelope else None
            if isinstance(message, LayersMounted | MountFailed) and message.transfer_id == transfer_id:
                return message
        raise AssertionError("the stream ended")

    async def grants(self) -> dict[str, str]:
        shown = (await self.mounts.shown()).get("r-1")
        return {} if shown is None else {name: one.grant for name, one in shown.layers.items()}


async def pinned(bus: MemoryBus) -> set[str]:
    """What the collector keeps for this."""
    return {f"sha256:{digest}" for digest in await mounted_digests(bus, STREAMS.prefix)}


async def _is_pinned_alone(here: Host, layer: Layer) -> bool:
    return await pinned(here.bus) == {layer.digest}


@asynccontextmanager
async def host(*, known: bool = True) -> AsyncIterator[Host]:
    """No fixture: those are made in a time of their own."""
    bus, mounts = MemoryBus(), MemoryLayerMounts({ONE.digest, TWO.digest})
    if known:
        await bus.commit(Outcome(index=(IndexWrite(KEYS.known_index, "r-1", 1.0),)))
    role = LayerMounter(bus=bus, mounts=mounts, streams=STREAMS, host="local", source="layer-mounter@h")
    async with TaskGroup() as tasks:
        running = [tasks.create_task(Worker(bus, one).run()) for one in role.subscriptions()]
        running.append(tasks.create_task(role.run()))
        yield Host(bus, mounts)
        for task in running:
            task.cancel()


def _known(host: str) -> KnownRange:
    return KnownRange.said(
        AgentStarted(
            range_id="r-1", engine_id="e-1", engine_version="28", store="classic", platform="linux/amd64", host=host
        ),
        datetime(2026, 1, 1, tzinfo=UTC),
    )


def names(*layers: Layer) -> list[str]:
    return [layer.diff_id.removeprefix("sha256:") for layer in layers]


async def test_layers_are_shown_and_the_deployer_is_told() -> None:
    """What the registry has not is refused, with the reason."""
    async with host() as here:
        assert isinstance(await here.mount("t-1", ONE, TWO), LayersMounted)
        assert await here.grants() == dict.fromkeys(names(ONE, TWO), "t-1")
        assert await pinned(here.bus) == {ONE.digest, TWO.digest}
        unknown = Layer(digest=f"sha256:{'c' * 64}", diff_id=f"sha256:{'c' * 64}", size_bytes=1)
        failed = await here.mount("t-2", unknown)
        assert isinstance(failed, MountFailed)
        assert failed.error.code == "layers_not_mounted"


async def test_a_transfer_that_waits_for_unpacking_is_told_of() -> None:
    """Again and again, with what was read; meanwhile other layers of the range are shown."""
    packed = Layer(digest=f"sha256:{'d' * 64}", diff_id=f"sha256:{'e' * 64}", size_bytes=9, codec="gzip")
    async with host() as here:
        here.mounts.blobs = {*here.mounts.blobs, packed.digest}
        here.mounts.unpacks_seconds = 40.0
        waiting = asyncio.create_task(here.mount("t-1", packed, ONE))
        await asyncio.sleep(5)
        assert isinstance(await here.mount("t-2", TWO), LayersMounted)
        assert not waiting.done()
        assert isinstance(await waiting, LayersMounted)
        told = await progress(here.bus)
        assert len(told) > 30
        assert {(one.transfer_id, one.range_id, one.phase, one.total_bytes) for one in told} == {
            ("t-1", "r-1", "reading", 9)
        }
        assert told[-1].done_bytes == 9


async def progress(bus: MemoryBus) -> list[TransferProgress]:
    """What was told so far."""
    found = list[TransferProgress]()
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            async for entry in bus.tail([STREAMS.progress], after={STREAMS.progress: "0"}):
                if entry.envelope is not None and isinstance(entry.envelope.message, TransferProgress):
                    found.append(entry.envelope.message)
    return found


async def test_a_range_gives_back_its_own_layers_alone() -> None:
    """What another range says of it, in an outbox of its own, changes nothing."""
    async with host() as here:
        await here.mount("t-1", ONE)
        await here.bus.commit(Outcome(index=(IndexWrite(KEYS.known_index, "r-2", 2.0),)))
        word = LayersReleased(range_id="r-1", grants={names(ONE)[0]: "t-1"})
        await here.publish(STREAMS.outbox("r-2"), word)
        started = AgentStarted(
            range_id="r-1", engine_id="e-9", engine_version="28", store="containerd", platform="linux/amd64"
        )
        await here.publish(STREAMS.outbox("r-2"), started)
        await here.mount("t-2", TWO)
        await eventually(lambda: here.bus.discover(STREAMS.outbox("r-2")))
        assert len(await here.grants()) == 2
        await here.publish(STREAMS.outbox("r-1"), word)
        await until(here, names(TWO))
        await eventually(lambda: _is_pinned_alone(here, TWO))


async def test_what_a_range_of_another_host_gives_back_is_passed_on() -> None:
    """The layer-mounters of all hosts share the outboxes: the one that reads it may be that of another host."""
    async with host() as here:
        await here.mount("t-1", ONE)
        word = LayersReleased(range_id="r-1", grants={names(ONE)[0]: "t-1"})
        await here.bus.commit(Outcome(records=(KEYS.known("r-1").write(_known(host="other"), expected=ANY),)))
        await here.publish(STREAMS.outbox("r-1"), word)
        async for entry in here.bus.tail([STREAMS.host_inbox("other")], after={STREAMS.host_inbox("other"): "0"}):
            assert entry.envelope is not None
            assert entry.envelope.message == word
            break
        assert await here.grants() == {names(ONE)[0]: "t-1"}
        await here.bus.commit(Outcome(records=(KEYS.known("r-1").write(_known(host="local"), expected=ANY),)))
        await here.publish(STREAMS.host_inbox("local"), word)
        await until(here, [])


async def test_what_nobody_was_told_of_is_hidden_again() -> None:
    """The deployer takes a request back; what another transfer asked for stays."""
    async with host() as here:
        await here.mount("t-1", ONE)
        await here.mount("t-2", TWO)
        await here.publish(STREAMS.host_inbox("local"), UnmountRequested(transfer_id="t-2", range_id="r-1"))
        await until(here, names(ONE))


async def test_a_request_that_comes_after_the_next_engine_leaves_nothing() -> None:
    """What was asked for an engine that its range no longer has is hidden by the next check."""
    async with host() as here:
        started = AgentStarted(
            range_id="r-1", engine_id="e-2", engine_version="28", store="containerd", platform="linux/amd64"
        )
        known = KnownRange.said(started, datetime.now(UTC))
        await here.bus.commit(Outcome(records=(KEYS.known("r-1").write(known, expected=ANY),)))
        await here.mount("t-1", ONE, engine_id="e-1")
        await until(here, [])
        await here.mount("t-2", TWO, engine_id="e-2")
        await asyncio.sleep(200)
        assert list(await here.grants()) == names(TWO)


async def test_a_recreated_range_begins_with_nothing() -> None:
    """Its agent announces another engine."""
    async with host() as here:
        await here.mount("t-1", ONE)
        started = AgentStarted(
            range_id="r-1", engine_id="e-2", engine_version="28", store="containerd", platform="linux/amd64"
        )
        await here.publish(STREAMS.outbox("r-1"), started)
        await until(here, [])


async def test_a_recreated_range_starts_with_what_it_should_have() -> None:
    """What is wanted and shown is in its seed within seconds; the next engine keeps what it has of that, also where a
    request for it comes before its word.
    """
    web = DesiredImage(
        reference="docker.io/library/web:1",
        image_id="sha256:1",
        diff_ids=(ONE.diff_id,),
        deployment_id="d-1",
        source="registry:5000/web@sha256:2",
    )
    async with host() as here:
        await here.mount("t-1", ONE)
        await here.mount("t-2", TWO)
        wanted = DesiredImages(range_id="r-1", images={web.reference: web})
        await here.bus.commit(Outcome(records=(KEYS.wanted("r-1").write(wanted, expected=ANY),)))

        async def seeded() -> list[DesiredImage]:
            return [one.image for one in (await here.mounts.shown())["r-1"].seeded]

        assert await eventually(seeded, within_seconds=10) == [web]
        started = AgentStarted(
            range_id="r-1",
            engine_id="e-2",
            engine_version="28",
            store="containerd",
            platform="linux/amd64",
            images=(PresentImage(references=(web.reference,), diff_ids=web.diff_ids),),
        )
        known = KnownRange.said(started, datetime.now(UTC))
        await here.bus.commit(Outcome(records=(KEYS.known("r-1").write(known, expected=ANY),)))
        await here.mount("t-3", TWO, engine_id="e-2")
        assert await here.grants() == {names(ONE)[0]: "t-1", names(TWO)[0]: "t-3"}
        await here.publish(STREAMS.outbox("r-1"), started)
        await asyncio.sleep(200)
        assert await here.grants() == {names(ONE)[0]: "t-1", names(TWO)[0]: "t-3"}
        forgotten = DesiredImages(range_id="r-1")
        await here.bus.commit(Outcome(records=(KEYS.wanted("r-1").write(forgotten, expected=ANY),)))
        await asyncio.sleep(10)
        assert await seeded() == []


async def test_a_range_that_lies_about_its_images_is_shown_nothing_of_another_one() -> None:
    """It says that it has the other's image, mounted, on an engine of the other's id, and gives back the other's."""
    async with host() as here:
        await here.mount("t-1", ONE)
        await here.mounts.show("r-2", [TWO], grant="t-2", engine_id="e-2")
        await here.bus.commit(Outcome(index=(IndexWrite(KEYS.known_index, "r-2", 2.0),)))
        for engine_id in ("e-1", "e-9"):
            lie = AgentStarted(
                range_id="r-2",
                engine_id=engine_id,
                engine_version="28",
                store="containerd",
                platform="linux/amd64",
                images=(PresentImage(references=("docker.io/library/web:1",), diff_ids=(ONE.diff_id,)),),
                mounts_layers=True,
            )
            await here.publish(STREAMS.outbox("r-2"), lie)
        grants = dict.fromkeys(names(ONE, TWO), "t-1")
        await here.publish(STREAMS.outbox("r-2"), LayersReleased(range_id="r-2", grants=grants))
        await asyncio.sleep(200)
        assert await here.grants() == {names(ONE)[0]: "t-1"}
        assert "r-2" not in await here.mounts.shown()  # another engine's: it has no part in them


async def test_a_range_that_was_forgotten_is_shown_nothing() -> None:
    """What is shown to a range that nobody knows of goes at the next check."""
    async with host(known=False) as here:
        await here.mounts.show("r-1", [ONE], grant="t-1", engine_id="e-1")
        await until(here, [])


async def test_what_cannot_be_read_is_recorded() -> None:
    """A blob that the registry has lost: within a minute, for `verify`; and no longer than it is so."""
    async with host() as here:
        assert isinstance(await here.mount("t-1", ONE, TWO), LayersMounted)
        here.mounts.blobs = {TWO.digest}
        await asyncio.sleep(70)
        record = (await MountKeys("cyroid").host("local").load(here.bus)).value
        assert record is not None
        assert [(one.range_id, one.diff_id) for one in record.problems] == [("r-1", ONE.diff_id)]
        here.mounts.blobs = {ONE.digest, TWO.digest}
        await asyncio.sleep(70)
        record = (await MountKeys("cyroid").host("local").load(here.bus)).value
        assert record is not None
        assert record.problems == ()


async def until(here: Host, expected: list[str]) -> None:
    """Wait until the range is shown these folders."""

    async def shown() -> bool:
        return sorted(await here.grants()) == sorted(expected)

    await eventually(shown)
