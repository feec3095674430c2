"""Watching for work that stands still."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.agent.cancellation import Cancellation, Cancelled
from services.agent.inspection import Wanted
from services.agent.load import RETELL_SECONDS, UNPACKED_BYTES_PER_SECOND, load
from services.agent.pull import Patience
from services.agent.stall_watch import Activity, Watch
from services.core.images.image import EngineImage
from services.errors import Stalled
from services.ports import Chunks, EngineProgress

pytestmark = pytest.mark.faked_time


async def test_work_that_stands_still_is_ended() -> None:
    """With what it was and how long it may stand still."""
    with pytest.raises(Stalled, match=r"the pull stood still for more than 0\.05 s"):
        async with Watch(0.05).guard("the pull"):
            await asyncio.Event().wait()


async def test_signs_of_life_keep_work_going() -> None:
    """The patience begins anew with each."""
    watch = Watch(0.2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with watch.guard("the pull"):
        while loop.time() - started < 0.5:
            watch.alive()
            await asyncio.sleep(0.01)


async def test_trouble_announced_shortens_the_patience() -> None:
    """To what is left at most; it never lengthens it."""
    watch = Watch(60)

    async def troubled() -> None:
        async with watch.guard("the pull"):
            watch.hurry(0.05)
            watch.hurry(30)
            await asyncio.Event().wait()

    with pytest.raises(Stalled):
        await troubled()


async def test_another_timeout_inside_is_not_taken_for_a_stall() -> None:
    """A TimeoutError of the work itself comes out as it is."""
    with pytest.raises(TimeoutError):
        async with Watch(60).guard("the pull"), asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_queued_work_lives_as_long_as_the_work_before_it_moves() -> None:
    """And no longer: when that stands still, both do. Work that is not queued has to move itself."""
    activity = Activity()
    with activity.watch(0.2) as queued, activity.watch(60) as moving, activity.watch(0.2) as idle:
        queued.queued = True
        told: list[int] = []
        queued.retell = lambda: told.append(1)

        async def wait(watch: Watch) -> None:
            async with watch.guard("the pull"):
                await asyncio.Event().wait()

        waiting, standing = asyncio.ensure_future(wait(queued)), asyncio.ensure_future(wait(idle))
        await asyncio.sleep(0)
        async with moving.guard("the first pull"):
            while not standing.done():
                activity.moved(moving)
                await asyncio.sleep(0.01)
        assert not waiting.done()
        assert told
        with pytest.raises(Stalled):
            await waiting
        with pytest.raises(Stalled):
            await standing


async def test_a_transfer_is_cancelled_from_outside() -> None:
    """Its scope ends with Cancelled; another transfer goes on."""
    cancellation = Cancellation()

    async def transfer(name: str) -> None:
        async with cancellation.scope(name):
            await asyncio.Event().wait()

    first, second = asyncio.ensure_future(transfer("one")), asyncio.ensure_future(transfer("two"))
    await asyncio.sleep(0)
    assert cancellation.cancel("one")
    with pytest.raises(Cancelled, match="transfer one was cancelled"):
        await first
    assert not second.done()
    assert cancellation.cancel("two")
    with pytest.raises(Cancelled):
        await second


async def test_a_cancelled_id_is_remembered() -> None:
    """A transfer that comes after its cancelling does not begin."""
    cancellation = Cancellation()
    assert not cancellation.cancel("one")
    with pytest.raises(Cancelled, match="before it began"):
        async with cancellation.scope("one"):
            raise AssertionError("it began")


async def test_a_load_may_be_silent_for_as_long_as_unpacking_takes() -> None:
    """After its last byte an engine writes what it got, without a word; it is told of meanwhile, and not for ever."""
    image = MemoryEngine().add_image("app:1", [b"app"])
    wanted = Wanted(reference="docker.io/library/app:1", image_id=image.local_id, diff_ids=image.diff_ids)
    size, piece = 100 * UNPACKED_BYTES_PER_SECOND, UNPACKED_BYTES_PER_SECOND
    loop = asyncio.get_running_loop()

    async def told_until(unpacking_seconds: float) -> list[tuple[int, bool]]:
        told: list[tuple[int, bool]] = []
        await load(
            Unpacking(image, unpacking_seconds),
            wanted,
            _pieces(bytes(piece), size // piece),
            activity=Activity(),
            patience=Patience(stall_seconds=60),
            report=lambda done, ended: told.append((done, ended)),
        )
        return told

    assert (await told_until(150)).count((size, True)) >= 150 / RETELL_SECONDS
    began = loop.time()
    with pytest.raises(Stalled):
        await told_until(1000)
    assert loop.time() - began == pytest.approx(60 + 100, abs=1)


class Unpacking(MemoryEngine):
    """Takes an archive, then is silent, then has `image`."""

    def __init__(self, image: EngineImage, seconds: float) -> None:
        super().__init__()
        self._image = image
        self._seconds = seconds

    @asynccontextmanager
    async def load(self, archive: Chunks) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        async for _ in archive:
            pass
        await asyncio.sleep(self._seconds)
        self.add_image("app:1", [b"app"])
        yield _lines()


async def _lines() -> AsyncIterator[EngineProgress]:
    yield EngineProgress(status="Loaded image: app:1")


async def _pieces(content: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield content
