"""Spools: one writer, readers at their own pace, room that is asked for first."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from events.task_group import TaskGroup
from services.errors import NoSpace, TransferFailed
from services.tar_server.spool import STEP_BYTES, Spool, SpoolFolder

CHUNKS = [bytes([number]) * 70_000 for number in range(20)]
WHOLE = b"".join(CHUNKS)


def folder(path: Path, limit_bytes: int = 10 * STEP_BYTES) -> SpoolFolder:
    return SpoolFolder(path, limit_bytes=limit_bytes, spare_bytes=0)


async def read_all(spool: Spool) -> bytes:
    return b"".join([chunk async for chunk in spool.read()])


async def test_readers_get_all_bytes_whenever_they_come(tmp_path: Path) -> None:
    """Before the first byte, in the middle, and after the end."""
    spool = folder(tmp_path).open(len(WHOLE))
    async with TaskGroup() as group:
        early = group.create_task(read_all(spool))
        await asyncio.sleep(0)
        for number, chunk in enumerate(CHUNKS):
            await spool.write(chunk)
            if number == 10:
                middle = group.create_task(read_all(spool))
        spool.finish()
    assert early.result() == middle.result() == await read_all(spool) == WHOLE
    spool.close()


async def test_a_reader_that_stands_still_holds_nobody_up(tmp_path: Path) -> None:
    """One reads a single chunk and stops; the writer and the other reader come to their end."""
    spool = folder(tmp_path).open(len(WHOLE))
    await spool.write(CHUNKS[0])
    standing = spool.read()
    assert await anext(standing) == CHUNKS[0]
    for chunk in CHUNKS[1:]:
        await spool.write(chunk)
    spool.finish()
    assert await read_all(spool) == WHOLE
    spool.close()


async def test_a_failed_writer_never_looks_like_the_end(tmp_path: Path) -> None:
    """Every reader gets the error, also one that comes later and one that waits."""
    spool = folder(tmp_path).open(None)
    await spool.write(b"half")
    waiting = asyncio.ensure_future(read_all(spool))
    await asyncio.sleep(0)
    spool.fail(TransferFailed("the engine went away"))
    for reader in (waiting, read_all(spool)):
        with pytest.raises(TransferFailed, match="the engine went away"):
            await reader
    spool.close()


async def test_unpublished_bytes_are_not_read(tmp_path: Path) -> None:
    """A header can be put right until it is published, and not after."""
    spool = folder(tmp_path).open(None)
    await spool.write(b"????", publish=False)
    await spool.write(b"data", publish=False)
    assert spool.published_bytes == 0
    await spool.rewrite(b"head", 0)
    spool.publish()
    with pytest.raises(ValueError, match="published already"):
        await spool.rewrite(b"late", 0)
    spool.finish()
    assert await read_all(spool) == b"headdata"
    spool.close()


async def test_room_is_asked_for_before_the_first_byte(tmp_path: Path) -> None:
    """What does not fit beside the open spools is refused with the figures; closing gives the room back."""
    spools = folder(tmp_path, 1000)
    first = spools.open(600)
    with pytest.raises(NoSpace, match="may hold 1000 bytes, 600 are taken and 500 more are needed"):
        spools.open(500)
    first.close()
    spools.open(500).close()
    assert spools.taken_bytes == 0


async def test_a_disk_without_room_is_noticed_beforehand(tmp_path: Path) -> None:
    """The disk's free space bounds too, less what is kept free."""
    spools = SpoolFolder(tmp_path, limit_bytes=1 << 62, spare_bytes=1 << 60)
    with pytest.raises(NoSpace, match="make room there"):
        spools.open(1)


async def test_a_spool_of_unknown_size_takes_room_as_it_grows(tmp_path: Path) -> None:
    """In steps, up to the bound and to its last byte; what it did not need goes back at its end."""
    spools = folder(tmp_path, 2 * STEP_BYTES)
    spool = spools.open(None)
    assert spools.taken_bytes == STEP_BYTES
    big = bytes(STEP_BYTES)
    await spool.write(big)
    await spool.write(b"more")
    assert spools.taken_bytes == 2 * STEP_BYTES
    with pytest.raises(NoSpace):
        await spool.write(big)
    spool.finish()
    assert spools.taken_bytes == spool.end == STEP_BYTES + 4
    spool.close()
    assert spools.taken_bytes == 0


async def test_a_spool_of_unknown_size_begins_with_the_room_that_is_likely(tmp_path: Path) -> None:
    """Beside others it is refused where that is not there; alone it takes what there is, as long as it may fit."""
    spools = folder(tmp_path, 1000)
    other = spools.open(600)
    with pytest.raises(NoSpace, match="600 are taken and 800 more are needed"):
        spools.open(None, likely_bytes=800)
    other.close()
    spool = spools.open(None, least_bytes=500, likely_bytes=5000)
    assert spools.taken_bytes == 1000
    spool.close()
    with pytest.raises(NoSpace, match="1500 more are needed"):
        spools.open(None, least_bytes=1500, likely_bytes=5000)


async def test_a_spool_that_outgrows_its_room_waits_for_another(tmp_path: Path) -> None:
    """Nothing of it is lost meanwhile, and nobody begins before it has what it waits for."""
    spools = folder(tmp_path, 1000)
    other = spools.open(600)
    spool = spools.open(None, likely_bytes=300)
    await spool.write(bytes(300))
    writing = asyncio.ensure_future(spool.write(bytes(500)))
    await asyncio.sleep(0)
    assert not writing.done()
    with pytest.raises(NoSpace, match="running exports wait"):
        spools.open(10)
    more = asyncio.ensure_future(spools.given_back())
    other.close()
    await writing
    await more
    assert spools.taken_bytes <= 1000
    spool.finish()
    assert len(await read_all(spool)) == 800
    spools.open(200).close()
    spool.close()


async def test_spools_that_wait_for_one_another_do_not_wait_for_ever(tmp_path: Path) -> None:
    """The last one breaks off, and what it gives back is the first one's."""
    spools = folder(tmp_path, 1000)
    first, second = (spools.open(None, likely_bytes=500) for _ in range(2))
    for spool in (first, second):
        await spool.write(bytes(500))
    waiting = asyncio.ensure_future(first.write(bytes(400)))
    await asyncio.sleep(0)
    with pytest.raises(NoSpace):
        await second.write(bytes(400))
    second.close()
    await waiting
    first.close()
    assert spools.taken_bytes == 0


async def test_a_writer_that_is_stopped_while_it_waits_stands_in_nobodys_way(tmp_path: Path) -> None:
    """Whoever wants to begin gets the room."""
    spools = folder(tmp_path, 1000)
    other, spool = spools.open(600), spools.open(None, likely_bytes=300)
    writing = asyncio.ensure_future(spool.write(bytes(500)))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    spools.open(100).close()
    for one in (other, spool):
        one.close()


async def test_a_folder_that_was_tidied_away_is_made_again(tmp_path: Path) -> None:
    """While the tar server runs; where that cannot be, the export has no room, and the server goes on."""
    spools = folder(tmp_path / "spools")
    spools.open(10).close()
    (tmp_path / "spools").rmdir()
    spools.open(10).close()
    (tmp_path / "file").touch()
    with pytest.raises(NoSpace, match="no spool can be made"):
        folder(tmp_path / "file").open(10)


async def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    """The file has no name while it is used; one that an earlier run left with a name is removed."""
    (tmp_path / "old.spool").write_bytes(b"left")
    (tmp_path / "mine.txt").write_bytes(b"not a spool")
    spools = folder(tmp_path)
    assert spools.clean() == 1
    spool = spools.open(10)
    await spool.write(b"content")
    assert os.listdir(tmp_path) == ["mine.txt"]
    spool.close()
