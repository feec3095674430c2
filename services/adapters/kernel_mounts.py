"""mount(2) and umount2(2), which Python's standard library does not have, and the kernel's list of mounts.

The `mount` command would go through a loop device, and fail for an index whose content is another file. Folders that a
range can see may have been changed by it, so nothing below them is reached by a path that could follow a symbolic link:
`Place` walks down by descriptors.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READ_ONLY, NO_DEVICES, BIND, SHARED = 1, 4, 4096, 1 << 20
#: The kind of all that ranges are shown.
FILE_SYSTEM = "erofs"
_DETACH, _NO_FOLLOW = 2, 8
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OCTAL = re.compile(r"\\([0-7]{3})")
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of /proc/self/mountinfo. `device` is `major:minor`; `source` what was mounted, as it was named."""

    path: Path
    device: str
    kind: str
    source: str


def mount(source: Path | None, target: str | Path, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    """Mount `source` at `target`. Raises OSError."""
    words = [os.fsencode(word) if word is not None else None for word in (source, target, kind)]
    if _LIBC.mount(*words, ctypes.c_ulong(flags), os.fsencode(options) if options else None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount(target: str | Path) -> None:
    """Take a mount away, also one that is in use: its users keep it until they let go. Raises OSError."""
    if _LIBC.umount2(os.fsencode(target), _DETACH | _NO_FOLLOW):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def mounts_below(folder: Path) -> list[MountPoint]:
    """Every mount at or below `folder`, in the order in which they were made."""
    found, whole = [], str(folder)
    below = whole.rstrip("/") + "/"
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split(" ", 5)
        path = _unescaped(words[4])
        if path == whole or path.startswith(below):  # before the rest is read: a host has hundreds of others
            kind, source = words[5].partition(" - ")[2].split(" ")[:2]
            found.append(MountPoint(path=Path(path), device=words[2], kind=kind, source=_unescaped(source)))
    return found


def not_mounted(root: Path, folders: Set[Path], kind: str) -> list[Path]:
    """Those of `folders`, all below `root`, at which no file system of this kind is what is seen."""
    if not folders:
        return []
    table = MountTable(root)
    return [folder for folder in sorted(folders) if [one.kind for one in table.at(folder)[-1:]] != [kind]]


class MountTable:
    """Mounts at and below a folder, read once: the kernel writes the whole table for each reading.

    What its holder mounts meanwhile, it notes with `mounted`.
    """

    def __init__(self, folder: Path) -> None:
        self._points: dict[Path, list[MountPoint]] = {}
        for point in mounts_below(folder):
            self._points.setdefault(point.path, []).append(point)

    def at(self, path: Path) -> list[MountPoint]:
        """What is mounted at `path`; the last one is what is seen."""
        return self._points.get(path, [])

    def mounted(self, path: Path, kind: str, source: str) -> None:
        """Note that this alone is mounted at `path` now."""
        self._points[path] = [MountPoint(path=path, device="", kind=kind, source=source)]


class Place:
    """A folder held open. Names below it are looked up without following a symbolic link."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *names: str) -> Iterator[Place]:
        """`folder/name/name…`: `folder` itself is trusted, each name is made if it is not there. Raises OSError."""
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                if not _is_there(descriptor, name):
                    os.mkdir(name, 0o755, dir_fd=descriptor)
                below = os.open(name, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield cls(descriptor)
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """What is in it."""
        return os.listdir(f"/proc/self/fd/{self._descriptor}")

    def stat(self, name: str) -> os.stat_result | None:
        """Of what is there under that name, or mounted there; None for nothing."""
        if not _is_there(self._descriptor, name):
            return None
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    @contextmanager
    def point(self, name: str) -> Iterator[str]:
        """A path of the folder `name`, made if need be, to mount something on. Raises OSError."""
        if not _is_there(self._descriptor, name):
            os.mkdir(name, 0o755, dir_fd=self._descriptor)
        descriptor = os.open(name, _FOLDER, dir_fd=self._descriptor)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def unmount(self, name: str) -> None:
        """Take away what is mounted at `name`. Raises OSError if nothing is."""
        unmount(f"/proc/self/fd/{self._descriptor}/{name}")

    def remove(self, name: str) -> None:
        """Remove an empty folder, a file or a link. Raises OSError."""
        found = self.stat(name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=self._descriptor)
        else:
            os.unlink(name, dir_fd=self._descriptor)


def _is_there(descriptor: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unescaped(text: str) -> str:
    """mountinfo writes blanks and backslashes as octal numbers."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text
