"""How long an engine may be silent in a pull."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.adapters.engine_progress import Limits, Progress
from services.adapters.engine_streams import Line, Reply
from services.errors import Stalled

pytestmark = pytest.mark.faked_time
FIRST, SECOND = "a" * 12, "b" * 12


def pull(*lines: Line | float) -> tuple[Progress, Reply]:
    """A pull whose engine says these lines, with pauses of so many seconds between them."""
    reply = Reply("pull", "unix:///e", 60)

    async def said() -> AsyncIterator[Line]:
        for line in lines:
            if isinstance(line, Line):
                yield line
            else:
                async with reply.watched():
                    await asyncio.sleep(line)

    return Progress(said(), reply, Limits(moving_seconds=60, queued_seconds=1800)), reply


async def said_by(progress: Progress) -> list[str]:
    return [line.status async for line in progress]


async def test_a_pull_behind_others_is_no_standstill() -> None:
    """A layer that waits for the engine's other downloads may wait for long."""
    progress, _ = pull(Line(status="Pulling fs layer", id=FIRST), Line(status="Waiting", id=FIRST), 900.0)
    assert await said_by(progress) == ["Pulling fs layer", "Waiting"]


async def test_a_download_that_is_silent_stands_still() -> None:
    """Also one that waited before, and while another of its layers waits."""
    loading = Line(status="Downloading", id=FIRST, detail={"current": 5, "total": 10})
    progress, _ = pull(Line(status="Waiting", id=FIRST), 900.0, Line(status="Waiting", id=SECOND), loading, 61.0)
    with pytest.raises(Stalled):
        await said_by(progress)


async def test_an_engine_that_repeats_that_it_waits_is_waiting() -> None:
    """A containerd store says it again and again."""
    waits = Line(status="Waiting", id=FIRST)
    progress, _ = pull(waits, 50.0, waits, 50.0, waits, 50.0)
    assert await said_by(progress) == ["Waiting"] * 3
