"""The disk's watch on a real Redis and a small real file system: one alarm, room that is made, and its end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from events.messages import CollectRequested, DiskPressure, Message, ReclaimRequested, RetentionRequested
from events.redis.bus import RedisBus
from events.streams import Streams
from services.collector.pressure import storage_watch
from services.collector.storage import RegistryStorage
from services.runtime.disk_watch import AGAIN_SECONDS
from tests.laboratory import RedisServer

pytestmark = pytest.mark.real
DISK_BYTES = 4 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Watched:
    """Two replicas that watch one disk, and what they said."""

    def __init__(self, bus: RedisBus, streams: Streams, disk: Path) -> None:
        self.later = 0.0
        self.bus = bus
        self.streams = streams
        self.replicas = [
            storage_watch(
                bus=bus,
                streams=streams,
                source=f"collector@{number}",
                storage=RegistryStorage(disk),
                limit_percent=25.0,
                clock=lambda: time.time() + self.later,
            )
            for number in range(2)
        ]

    async def look(self) -> list[Message]:
        """What everybody has said after each replica looked once more."""
        for one in self.replicas:
            await one.look()
        found = [entry async for entry in self.bus.tail((self.streams.images,), after="0", follow=False)]
        return [entry.envelope.message for entry in found if entry.envelope is not None]


@pytest.fixture
async def watched(redis_server: RedisServer, key_prefix: str, disk: Path) -> AsyncIterator[Watched]:
    streams = Streams(key_prefix)
    async with RedisBus.open(redis_server.url, streams=streams) as bus:
        yield Watched(bus, streams, disk)


async def test_a_disk_that_fills_gives_one_alarm_and_makes_room(watched: Watched, disk: Path) -> None:
    """Both replicas see it. Room is made again after a while; once there is some the alarm is over, and said so."""
    assert await watched.look() == []
    (disk / "filler").write_bytes(bytes(DISK_BYTES - DISK_BYTES // 5))
    alarm, *commands = await watched.look()
    assert isinstance(alarm, DiskPressure)
    assert alarm.low
    assert alarm.free_bytes < alarm.limit_bytes == DISK_BYTES // 4
    assert commands == [
        RetentionRequested(),
        CollectRequested(keep_seconds=600.0),
        ReclaimRequested(patterns=("*",), why="pressure"),
    ]
    assert len(await watched.look()) == 4
    watched.later = AGAIN_SECONDS + 1
    assert len(await watched.look()) == 7
    (disk / "filler").unlink()
    over = (await watched.look())[7:]
    assert [(one.low, one.total_bytes) for one in over if isinstance(one, DiskPressure)] == [(False, DISK_BYTES)]
    assert len(over) == 1
