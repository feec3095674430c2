"""Direct I/O of large layers' EROFS mounts, with their disk's read-ahead: what is read is in the page cache once.

Without it the kernel reads a blob into the page cache of its own file system first and copies it from there: twice the
memory for each byte, and a quarter more time. It pays only with enough read-ahead. The backing device of an EROFS mount
(`/sys/devices/virtual/bdi/erofs-N`) has the kernel's 128 KiB, whatever its disk has.

Layers that are not large are not read directly: after a push they are in the page cache, and containers start from
there (Linux commit 6422cde1b0d5 has figures).

Blocks of an EROFS index are 512 bytes, and a disk with larger sectors reads no such block directly. So a blob is tried.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

OPTION = "directio"
_PREFIX = "erofs-"
_BLOCK_BYTES = 512
#: Larger layers hold disks and installations more than the programs that a container starts with.
LEAST_BYTES = 256 * 1024**2


class DirectReads:
    """Which blobs are read directly, and the read-ahead of their mounts. `system` is where sysfs is."""

    def __init__(self, system: Path = Path("/sys"), *, least_bytes: int = LEAST_BYTES) -> None:
        self._least_bytes = least_bytes
        self._disks = system / "dev/block"
        self._devices = system / "devices/virtual/bdi"
        self._seen = frozenset[str]()

    def read_ahead_kib(self, blob: Path) -> int | None:
        """The read-ahead of the disk that `blob` is on; None where it is not to be read directly. Blocking.

        That is where it is small, where there is no one disk below its file system, where that disk does not read
        single blocks of 512 bytes, and where this process may not set read-ahead.
        """
        if not os.access(self._devices, os.W_OK):
            return None
        with suppress(OSError, ValueError):
            found = blob.stat()
            if found.st_size < self._least_bytes:
                return None
            number = found.st_dev
            device = (self._disks / f"{os.major(number)}:{os.minor(number)}").resolve(strict=True)
            for disk in (device, device.parent):  # of a partition its disk's
                limit = disk / "queue/read_ahead_kb"
                if limit.exists():
                    return int(limit.read_text()) if _reads_blocks(blob) else None
        return None

    def raise_new(self, kib: int) -> None:
        """Set the read-ahead of mounts that have come into being since the last call. Raises OSError."""
        found = frozenset(name for name in os.listdir(self._devices) if name.startswith(_PREFIX))
        for name in sorted(found - self._seen):
            with suppress(FileNotFoundError):  # unmounted meanwhile
                limit = self._devices / name / "read_ahead_kb"
                if int(limit.read_text()) < kib:
                    limit.write_text(str(kib))
        self._seen = found


def _reads_blocks(file: Path) -> bool:
    """Whether one block in its midst can be read past the page cache. Raises OSError where it cannot be opened."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as buffer, memoryview(buffer)[:_BLOCK_BYTES] as block:
            os.preadv(descriptor, [block], _BLOCK_BYTES)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
