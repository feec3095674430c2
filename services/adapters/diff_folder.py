"""Opens files below one folder of a layer store, and nothing outside it, whatever names and links there contain."""

from __future__ import annotations

import contextlib
import errno
import os
from types import TracebackType
from typing import Self

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO would block the reader: O_NONBLOCK opens it at once, and it then gives no bytes.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_FILE = {b"", b".", b".."}
_LINKS_AT_MOST = 40
_FOLDERS_OPEN = 64


class DiffFolder:
    """A layer's `diff` folder, opened once. Names resolve as in a container whose root it is.

    A tar lists a folder's files together, so the folders on the way to the last file stay open. Links are followed
    only where a tar put a file "into" a link, as the engine did when it unpacked it; absolute ones begin here.
    """

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: list[tuple[bytes, int]] = []
        self._last: bytes | None = None
        self._here = self._root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_below(0)
        os.close(self._root)

    def open(self, name: bytes) -> int:
        """A file descriptor for reading. Raises OSError."""
        head, _, file = name.rpartition(b"/")
        if head != self._last or file in _NO_FILE:
            *folders, file = _parts(name)
            self._last = None
            try:
                self._here = self._walk(folders)
            except OSError as problem:
                if problem.errno not in {errno.ELOOP, errno.ENOTDIR}:
                    raise
                self._here = self._walk(self._resolve(folders))
            self._last = head
        return os.open(file, _FILE, dir_fd=self._here)

    def _walk(self, folders: list[bytes]) -> int:
        if len(folders) > _FOLDERS_OPEN:
            return self._descend(folders)
        same = 0
        for part, (opened, _) in zip(folders, self._open, strict=False):
            if part != opened:
                break
            same += 1
        self._close_below(same)
        for part in folders[same:]:
            self._open.append((part, os.open(part, _FOLDER, dir_fd=self._top())))
        return self._top()

    def _descend(self, folders: list[bytes]) -> int:
        """For very deep folders: one descriptor that moves down, kept in place of the whole path's."""
        path = b"/".join(folders)
        if self._open and self._open[-1][0] == path:
            return self._top()
        self._close_below(0)
        current = os.open(b".", _FOLDER, dir_fd=self._root)
        try:
            for part in folders:
                below = os.open(part, _FOLDER, dir_fd=current)
                os.close(current)
                current = below
        except OSError:
            os.close(current)
            raise
        self._open.append((path, current))
        return current

    def _resolve(self, parts: list[bytes]) -> list[bytes]:
        """The same folder without links on the way to it."""
        waiting, found, links = list(reversed(parts)), list[bytes](), 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                del found[-1:]
                continue
            target = None
            with contextlib.suppress(OSError):
                target = os.readlink(part, dir_fd=self._walk(found))
            if target is None:
                found.append(part)
                continue
            links += 1
            if links > _LINKS_AT_MOST:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), b"/".join(parts))
            if target.startswith(b"/"):
                found = []
            waiting += reversed([one for one in target.split(b"/") if one not in {b"", b"."}])
        return found

    def _top(self) -> int:
        return self._open[-1][1] if self._open else self._root

    def _close_below(self, keep: int) -> None:
        while len(self._open) > keep:
            os.close(self._open.pop()[1])


def _parts(name: bytes) -> list[bytes]:
    """A name's parts, cleaned as the engine cleans it: rooted at the layer, so that `..` ends there."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in {b"", b"."}:
            parts.append(part)
    if not parts:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    return parts
