"""Archives whose turn has not come: they wait in a queue, and so does the agent."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path

import pytest

from events.messages import ImageFailed, ImageReady, TransferProgress
from events.task_group import TaskGroup
from services.agent.archive_download import fetch_in_turn
from services.agent.pull import Patience
from tests.unit.services.agent.archive_server import serving
from tests.unit.services.agent.scene import APP, BASE, RANGE, TOOLS, Scene, until


async def test_an_archive_whose_turn_has_not_come_is_waited_for(tmp_path: Path) -> None:
    """Asked for again and again, told as waiting, no failed attempt: it arrives once a slot is free."""
    scene = Scene()
    first, second = scene.build(BASE, reference="first:1"), scene.build(TOOLS)
    async with (
        serving(scene, tmp_path, limit=1, patience_seconds=0.02) as server,
        scene.listening(),
        TaskGroup() as tasks,
    ):
        server.source.gate = asyncio.Event()
        url, token = await server.offer(first, "t0", reference="docker.io/library/first:1")
        standing = tasks.create_task(server.get(url, token))
        await until(lambda: server.folder.taken_bytes > 0)
        await server.offered(second)
        async with asyncio.timeout(10):
            async for entry in scene.bus.tail([scene.streams.range_progress(RANGE)], after="0"):
                progress = entry.envelope.message if entry.envelope else None
                if isinstance(progress, TransferProgress) and progress.phase == "waiting":
                    assert "free export slot" in progress.note
                    break
        assert server.source.reads == list(first.diff_ids)
        server.source.gate.set()
        ready = await scene.answer()
        assert (await standing)[0] == 200
    assert isinstance(ready, ImageReady)


async def test_ranges_with_different_layers_all_get_their_turn(tmp_path: Path) -> None:
    """Six archives of one image, each another set of layers, behind one slot: first come, first served, none fails."""
    scene = Scene()
    image = scene.build(BASE, TOOLS, APP)
    sets = [held for size in (1, 2) for held in combinations(image.diff_ids, size)]
    done: list[int] = []

    async def get(number: int) -> None:
        url, token = await server.offer(image, f"t{number}", held=sets[number])
        async with fetch_in_turn(url, token, patience=Patience(), waiting=lambda note: None) as fetched:
            assert [chunk async for chunk in fetched.chunks]
        done.append(number)

    async with serving(scene, tmp_path, limit=1, patience_seconds=0.01) as server:
        server.source.gate = asyncio.Event()
        async with TaskGroup() as tasks:
            for number in range(len(sets)):
                tasks.create_task(get(number))
            await until(lambda: server.folder.taken_bytes > 0)
            server.source.gate.set()
    assert sorted(done) == list(range(len(sets)))


async def test_a_full_spool_is_waited_for(tmp_path: Path) -> None:
    """Room that another export has is given back: the next one gets it. 503 until then, not 507."""
    scene = Scene()
    first, second = scene.build(BASE, reference="first:1"), scene.build(BASE, TOOLS)
    size = len(BASE) + len(TOOLS) + 20_000
    async with (
        serving(scene, tmp_path, limit_bytes=size, linger_seconds=1.5, patience_seconds=0.02) as server,
        TaskGroup() as tasks,
    ):
        server.source.gate = asyncio.Event()
        standing = tasks.create_task(
            server.get(*await server.offer(first, "t1", reference="docker.io/library/first:1"))
        )
        await until(lambda: server.folder.taken_bytes > 0)
        url, token = await server.offer(second, "t2")
        status, body = await server.get(url, token)
        assert status == 503
        assert b"room" in body
        server.source.gate.set()
        assert (await standing)[0] == 200
        async with fetch_in_turn(url, token, patience=Patience(), waiting=lambda note: None) as fetched:
            assert [chunk async for chunk in fetched.chunks]


@pytest.mark.parametrize("away", [False, True])
async def test_a_turn_that_never_comes_fails_and_may_be_tried_again(away: bool, tmp_path: Path) -> None:
    """Whether the tar server is busy for too long, or does not answer: the deployer may try on."""
    scene = Scene()
    first, second = scene.build(BASE, reference="first:1"), scene.build(TOOLS)
    patience = Patience(turn_seconds=0.3, away_seconds=0.0)
    async with (
        serving(scene, tmp_path, limit=1, patience_seconds=0.02) as server,
        scene.listening(patience),
        TaskGroup() as tasks,
    ):
        server.source.gate = asyncio.Event()
        url, token = await server.offer(first, "t0", reference="docker.io/library/first:1")
        tasks.create_task(server.get(url, token))
        await until(lambda: server.folder.taken_bytes > 0)
        if away:
            await scene.say(scene.load_offer(second, "http://127.0.0.1:1/transfers/t1", "token"))
        else:
            await server.offered(second)
        failed = await scene.answer()
        server.source.gate.set()
    assert isinstance(failed, ImageFailed)
    assert failed.error.retryable
    assert failed.error.code == ("tar_server_unavailable" if away else "exports_busy")
