"""Spool files: one writer, any number of readers, each at its own pace.

A `Spool` is a file that grows. Readers follow what has been *published*; a reader that is slow or stands still holds
nobody up, because all it waits for is on disk. A spool ends in exactly one of two ways: `finish` (every reader gets
the last byte and a clean end) or `fail` (every reader gets the error, however far it has come).

The file is unlinked as soon as it is open, so a crash leaves nothing behind; what another crash left in the folder is
removed when the folder is opened. `SpoolFolder` keeps the sum of all spools under a bound and under the disk's free
space, and says so before the first byte. A spool whose size is not known begins with the room that it is likely to
take; where that is not enough its writer waits, with all that is written kept, until another spool gives room back. It
breaks off only when none can: it is larger than the bound, or all that are open wait for one another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from services.errors import CyroidError, NoSpace, TransferFailed

P = ParamSpec("P")
R = TypeVar("R")

#: What is read and written at a time; bounds the memory of a reader.
CHUNK_BYTES = 256 * 1024
#: Room is taken in steps of this by a spool that outgrows what was taken for it.
STEP_BYTES = 64 * 1024 * 1024
_SUFFIX = ".spool"


class SpoolFolder:
    """A folder for spools of at most `limit_bytes` in all; `spare_bytes` of the disk are kept free."""

    def __init__(self, path: Path, *, limit_bytes: int, spare_bytes: int = 256 * 1024 * 1024) -> None:
        self._path = path
        self._limit = limit_bytes
        self._spare = spare_bytes
        self._taken = 0
        self._unwritten = 0
        self._open = 0
        self._growing = 0
        self._given_back = asyncio.Event()

    @property
    def taken_bytes(self) -> int:
        """Bytes that open spools have reserved."""
        return self._taken

    def clean(self) -> int:
        """Create the folder and remove files that a crash left. Returns how many."""
        self._path.mkdir(parents=True, exist_ok=True)
        left = list(self._path.glob("*" + _SUFFIX))
        for file in left:
            file.unlink(missing_ok=True)
        return len(left)

    def take(self, size_bytes: int) -> None:
        """Reserve space. Raises NoSpace if the limit or the disk does not allow it."""
        if self._taken + size_bytes > self._limit:
            raise NoSpace(
                f"the spool folder {self._path} may hold {self._limit} bytes, {self._taken} are taken and"
                f" {size_bytes} more are needed: wait for running exports, or allow it more"
            )
        free = self._free()
        if size_bytes > free:
            raise NoSpace(
                f"the disk under {self._path} has room for {max(free, 0)} bytes more (with {self._spare} kept free),"
                f" {size_bytes} are needed: make room there"
            )
        self._taken += size_bytes
        self._unwritten += size_bytes

    def _free(self) -> int:
        """The disk's free space for spools, less what the open ones may still write."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)  # somebody may have tidied it away
            return shutil.disk_usage(self._path).free - self._unwritten - self._spare
        except OSError as problem:
            raise NoSpace(f"no spool can be made in {self._path}: {problem.strerror}") from problem

    def _room(self) -> int:
        return min(self._limit - self._taken, self._free())

    async def grow(self, reserved_bytes: int, needed_bytes: int) -> int:
        """Reserve more for a spool that has `reserved_bytes`, as soon as there is space; returns how much it got.

        Raises NoSpace if that can never be: it is too large by itself, or every other open spool waits here too.
        """
        while True:
            size = max(needed_bytes, min(STEP_BYTES, self._room()))
            try:
                self.take(size)
            except NoSpace:
                too_large = reserved_bytes + needed_bytes > self._limit
                if too_large or self._growing + 1 >= self._open:
                    raise
            else:
                return size
            self._growing += 1
            try:
                await self.given_back()
            finally:
                self._growing -= 1
                if not self._growing:
                    self._wake()  # who wants to begin stood back; what is left now is theirs, after this one's next try

    def wrote(self, size_bytes: int) -> None:
        """Note that reserved space became file content, which the disk's own figure now shows."""
        self._unwritten -= size_bytes

    def give_back(self, reserved_bytes: int, written_bytes: int) -> None:
        self._taken -= reserved_bytes
        self._unwritten -= reserved_bytes - written_bytes
        self._wake()

    def closed(self, reserved_bytes: int, written_bytes: int) -> None:
        """Note that a spool was closed."""
        self._open -= 1
        self.give_back(reserved_bytes, written_bytes)

    def _wake(self) -> None:
        given_back, self._given_back = self._given_back, asyncio.Event()
        given_back.set()

    async def given_back(self) -> None:
        """Return when there may be more space: a spool released some, or got what it waited for."""
        await self._given_back.wait()

    def may_have_space(self, size_bytes: int) -> bool:
        """Whether waiting for the spools that are open now could free so many bytes."""
        return self._taken > 0 and size_bytes <= self._limit

    def open(self, total_bytes: int | None, *, least_bytes: int = 0, likely_bytes: int = STEP_BYTES) -> Spool:
        """A new spool for exactly `total_bytes`; where that is not known, for `least_bytes` or more. Raises NoSpace.

        That one begins with room for `likely_bytes`; if it is the only one it makes do with what there is.
        """
        reserved = total_bytes
        if reserved is None:
            room = self._room() if self._open == 0 else self._limit
            reserved = max(1, least_bytes, min(likely_bytes, room, self._limit))
        if self._growing:
            raise NoSpace(f"the spool folder {self._path} is full, and running exports wait for space to end")
        self.take(reserved)
        try:
            descriptor, name = tempfile.mkstemp(suffix=_SUFFIX, dir=self._path)
            with contextlib.suppress(FileNotFoundError):  # another process may be cleaning the same folder
                os.unlink(name)
        except OSError as problem:
            self.give_back(reserved, 0)
            raise NoSpace(f"no spool can be made in {self._path}: {problem.strerror}") from problem
        self._open += 1
        return Spool(self, descriptor, reserved, total_bytes)


class Spool:
    """One growing file. Only its owner writes, and closes it when the last reader has gone."""

    def __init__(self, folder: SpoolFolder, descriptor: int, reserved_bytes: int, total_bytes: int | None) -> None:
        self.total_bytes = total_bytes
        self._folder = folder
        self._descriptor = descriptor
        self._reserved = reserved_bytes
        self._end = 0
        self._published = 0
        self._finished = False
        self._failure: CyroidError | None = None
        self._grown = asyncio.Event()

    @property
    def published_bytes(self) -> int:
        return self._published

    @property
    def end(self) -> int:
        """The offset of the next byte."""
        return self._end

    def close(self) -> None:
        """Free the disk space. Readers must have gone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._folder.closed(self._reserved, self._end)

    async def write(self, chunk: bytes, *, publish: bool = True) -> None:
        """Append, as soon as there is space. Readers see the bytes only after they are published.

        Raises NoSpace if there cannot be room, or the disk is full.
        """
        missing = self._end + len(chunk) - self._reserved
        if missing > 0:
            self._reserved += await self._folder.grow(self._reserved, missing)
        await self._put(chunk, self._end)
        self._end += len(chunk)
        self._folder.wrote(len(chunk))
        if publish:
            self.publish()

    async def rewrite(self, chunk: bytes, offset: int) -> None:
        """Replace unpublished bytes: a header whose size was not known when its place was left."""
        if offset < self._published or offset + len(chunk) > self._end:
            raise ValueError(f"bytes {offset} to {offset + len(chunk)} are not written, or published already")
        await self._put(chunk, offset)

    def publish(self) -> None:
        """Let readers read everything that was written."""
        self._published = self._end
        self._wake()

    def finish(self) -> None:
        """End the spool: readers end after the last byte, and reserved space that was not needed is freed."""
        if self._reserved > self._end:
            self._folder.give_back(self._reserved - self._end, 0)
            self._reserved = self._end
        self._finished = True
        self.publish()

    def fail(self, error: CyroidError) -> None:
        """End the spool with an error, which readers get. No effect on a spool that is finished."""
        if not self._finished and self._failure is None:
            self._failure = error
            self._wake()

    async def read(self) -> AsyncIterator[bytes]:
        """All bytes from the first, as they are published. Raises TransferFailed as soon as the writer failed."""
        offset = 0
        while await self._more_than(offset):
            length = min(CHUNK_BYTES, self._published - offset)
            chunk = await _in_thread(os.pread, self._descriptor, length, offset)
            offset += len(chunk)
            yield chunk

    async def _more_than(self, offset: int) -> bool:
        while True:
            if self._failure is not None:
                failed = TransferFailed(f"the export ended early: {self._failure}", code=self._failure.code)
                raise failed from self._failure
            if self._published > offset or self._finished:
                return self._published > offset
            await self._grown.wait()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def _put(self, chunk: bytes, offset: int) -> None:
        try:
            while chunk:
                written = await _in_thread(os.pwrite, self._descriptor, chunk, offset)
                chunk, offset = chunk[written:], offset + written
        except OSError as problem:
            raise NoSpace(f"the spool cannot be written: {problem.strerror}") from problem


async def _in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Like `asyncio.to_thread`, but never left while the thread still works: its file would be closed under it."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
