"""A task group that fails leaves nothing behind in its owner."""

from __future__ import annotations

import asyncio

import pytest

from events.task_group import TaskGroup


async def _fail() -> None:
    await asyncio.sleep(0)
    raise ValueError


async def _requests_after_a_failure() -> int:
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.create_task(_fail())
    owner = asyncio.current_task()
    assert owner is not None
    return owner.cancelling()


async def test_a_failed_group_takes_back_its_request_to_cancel() -> None:
    """The owner counts no request to cancel after a task failed while it waited at the end of the block."""
    assert await _requests_after_a_failure() == 0


async def test_a_timeout_after_a_failed_group_is_a_timeout() -> None:
    """What runs out of time after a failed group raises TimeoutError, also on Python 3.11.2."""
    await _requests_after_a_failure()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_a_request_from_outside_stays() -> None:
    """Cancelling the owner while it waits still cancels it, and the group's tasks."""
    inside = asyncio.Event()
    ended = asyncio.Event()

    async def last() -> None:
        try:
            inside.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def owner() -> None:
        async with TaskGroup() as group:
            group.create_task(last())

    task = asyncio.create_task(owner())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
