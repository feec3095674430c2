"""Loop devices: files as block devices, for kernels that mount file systems from block devices alone.

Linux mounts EROFS from plain files since 6.12. Before, the index and the tar behind it are given a loop device each.
A device is read-only and clears itself (LO_FLAGS_AUTOCLEAR): it lasts as long as somebody has it open, and a mount
has. So nothing has to be taken back, also after `kill -9`.

Ioctls and structures: `linux/loop.h`; LOOP_CONFIGURE needs Linux 5.8.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTROL = Path("/dev/loop-control")
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
#: struct loop_config: fd, block_size; of struct loop_info64 device to sizelimit, number to flags; names, key, reserve.
_CONFIG = struct.Struct("=2I5Q4I64s64s32s2Q8Q")
_SECTOR_BYTES = 512
_ATTEMPTS = 64


@contextmanager
def loop_device(file: Path, *, cut: bool = False) -> Iterator[Path]:
    """A read-only device with the bytes of `file`, until the block and all who opened it meanwhile have ended.

    Raises OSError: EINVAL for a file that is no whole number of sectors (512 bytes), whose end would be missing; with
    `cut` nobody needs that end.
    """
    backing = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not cut and os.fstat(backing).st_size % _SECTOR_BYTES:
            raise OSError(errno.EINVAL, "no whole number of sectors, so no loop device", str(file))
        path, device = _configured(backing)
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


def backing_file(device: str) -> str:
    """The path of the file behind `/dev/loopN`; empty for what is no such device."""
    name = device.removeprefix("/dev/")
    if not name.startswith("loop"):
        return ""
    try:
        return Path("/sys/block", name, "loop/backing_file").read_text(errors="surrogateescape").rstrip("\n")
    except OSError:
        return ""


def _configured(backing: int) -> tuple[Path, int]:
    """A device that was free, and a descriptor that keeps it."""
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                flags = _READ_ONLY | _AUTOCLEAR
                names_and_key = (bytes(64), bytes(64), bytes(32))
                fields = (backing, _SECTOR_BYTES, 0, 0, 0, 0, 0, 0, 0, 0, flags, *names_and_key, *[0] * 10)
                fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(*fields))
                return path, device
            except OSError as problem:
                os.close(device)
                if problem.errno != errno.EBUSY:  # somebody else was faster
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device is free", str(_CONTROL))
