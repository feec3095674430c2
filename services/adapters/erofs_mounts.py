"""EROFS mounts of an index and the tar behind it: from the files themselves, or through loop devices.

The kernel mounts plain files since Linux 6.12 (CONFIG_EROFS_FS_BACKED_BY_FILE); where it does not, each file gets a
loop device. The first mount finds out. Plain files are read directly where that pays
(`services.adapters.direct_reads`), if the kernel has the option for it (`directio`, of December 2024).
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path

from services.adapters.direct_reads import OPTION, DirectReads
from services.adapters.kernel_mounts import FILE_SYSTEM, NO_DEVICES, READ_ONLY, MountPoint, mount
from services.adapters.loop_devices import backing_file, loop_device
from services.runtime.telemetry import get_logger


class ErofsMounts:
    """`loops`: through loop devices from the beginning."""

    def __init__(self, *, loops: bool = False, direct: DirectReads | None = None) -> None:
        self._loops = loops
        self._direct: DirectReads | None = direct or DirectReads()
        self._log = get_logger(role="layer-mounter")

    def mount(self, index: Path, blob: Path | None, target: str, *, cut: bool = False) -> None:
        """Mount `index`, whose data is in `blob` if that is given, read-only at `target`. Raises OSError.

        cut  what is behind the blob's last whole block is in the index
        """
        if not self._loops:
            try:
                return self._mount_files(index, blob, target)
            except OSError as problem:
                if problem.errno != errno.ENOTBLK:
                    raise
            self._loops = True
            self._log.info("this kernel mounts no plain files: layers are mounted through loop devices")
        with ExitStack() as devices:
            source = devices.enter_context(loop_device(index))
            _mount(source, devices.enter_context(loop_device(blob, cut=cut)) if blob else None, target)

    def _mount_files(self, index: Path, blob: Path | None, target: str) -> None:
        kib = self._direct.read_ahead_kib(blob) if self._direct is not None and blob is not None else None
        if self._direct is None or kib is None:
            return _mount(index, blob, target)
        try:
            _mount(index, blob, target, OPTION)
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            _mount(index, blob, target)  # it was the option, then
            self._direct = None
            self._log.info("this kernel does not read mounted files directly: each byte is in the page cache twice")
            return
        try:
            self._direct.raise_new(kib)
        except OSError as problem:
            self._log.warning("large files of mounted layers are read slowly: no read-ahead", why=str(problem))

    @staticmethod
    def is_mounted(point: MountPoint, index: Path) -> bool:
        """Whether what is mounted there is `index`."""
        return point.kind == FILE_SYSTEM and str(index) in (point.source, backing_file(point.source))


def _mount(source: Path, data: Path | None, target: str, option: str = "") -> None:
    options = [option, f"device={data}" if data else ""]
    mount(source, target, FILE_SYSTEM, READ_ONLY | NO_DEVICES, ",".join(filter(None, options)))
