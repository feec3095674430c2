"""Disk use of the registry's storage, measured by walking its folder; never while a request waits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

#: The walk may take this share of the time, and is made at most this often.
_SHARE = 0.05
_LEAST_SECONDS = 30.0


class DiskUse(msgspec.Struct, frozen=True):
    """Bytes taken below a folder, and bytes free there."""

    taken_bytes: int
    free_bytes: int


def disk_use(folder: Path) -> DiskUse | None:
    """What is taken and free; None where it cannot be read."""
    try:
        free = os.statvfs(folder)
    except OSError:
        return None
    taken = 0
    for here, _, files in os.walk(folder):
        for name in files:
            try:
                taken += os.lstat(os.path.join(here, name)).st_blocks * 512
            except OSError:
                continue  # an upload that ended meanwhile
    return DiskUse(taken, free.f_bavail * free.f_frsize)


async def measure_often(storage: str, tell: Callable[[DiskUse | None], None]) -> None:
    """Measure and tell until cancelled; nothing where the storage is not mounted here."""
    if not storage:
        return
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        tell(await asyncio.to_thread(disk_use, Path(storage)))
        await asyncio.sleep(max((loop.time() - began) / _SHARE, _LEAST_SECONDS))
