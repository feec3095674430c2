"""Watching for work that stands still."""

import asyncio

import pytest

from services.agent.cancelling import Cancellation, Cancelled
from services.agent.stalls import Activity, Watch
from services.errors import Stalled

pytestmark = pytest.mark.looptime


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
