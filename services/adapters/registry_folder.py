"""Blobs written into the registry's storage folder, in place of an upload over HTTP (`CYROID_REGISTRY_WRITE_STORAGE`).

The registry hashes what it is sent on one core a layer, several times slower than OpenSSL does. What it would do with
an upload (distribution 2.8, blobwriter.go) is done here:

    an upload session of the registry, over HTTP: it checks our rights, and makes   repositories/<name>/_uploads/<id>/
    the blob is written there as `cyroid`, hashed on the way, zeros left out (a sparse file), and synced
    it is linked as   blobs/sha256/<2>/<digest>/data   unless that is there: nothing is ever replaced
    repositories/<name>/_layers/sha256/<digest>/link   makes it visible in the repository
    the session is cancelled, over HTTP, and its folder removed; the registry is asked for the blob

The session's folder is where the bytes are until the blob is whole, so a process that is killed leaves what a broken
upload leaves: a session, which the collector or the registry purges. Where the folder does not appear in the storage,
this is another registry's, and the upload goes on over HTTP.

Files are written as the user who owns the session's folder (setfsuid: the kernel checks and names that user, for one
thread), so the registry can change and remove all of them. It takes CAP_SETUID and CAP_SETGID, or to be that user.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from services.adapters.sparse_file import write_sparse
from services.errors import CyroidError, NoSpace, Stalled, TransferFailed, WrongContent
from services.ports import BlobDigest, Chunks, ThreadChunks
from services.runtime.telemetry import get_logger

T = TypeVar("T")
_V2 = "docker/registry/v2"
_NAME = "cyroid"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: A slow disk writes this much in a second.
_SLOW_DISK_BYTES = 16 * 1024 * 1024
#: So much is written before the kernel is told to bring it to the disk: else most of that begins with the fsync.
_BEGIN_BYTES = 16 * 1024 * 1024
#: SYNC_FILE_RANGE_WRITE
_BEGIN = 2
#: Only its value is returned, and nothing is set, for an id that is none.
_ASK = ctypes.c_uint(0xFFFFFFFF)
_LIBC = ctypes.CDLL(None)


class RegistryFolder:
    """The storage folder of the registry at hand. `close` when the process ends."""

    def __init__(self, root: Path, *, stall_seconds: float = 60.0, writers: int = 4) -> None:
        self._v2 = root / _V2
        self._stall_seconds = stall_seconds
        # Threads of their own: those that read layers keep the process's rights.
        self._pool = ThreadPoolExecutor(writers, thread_name_prefix="registry-folder")
        self._hashing = ThreadPoolExecutor(writers, thread_name_prefix="registry-hash")
        self._usable = True
        self._told = False
        self._log = get_logger(role="registry-pusher")

    def close(self) -> None:
        for pool in (self._pool, self._hashing):
            pool.shutdown(wait=False, cancel_futures=True)

    async def session(self, repository: str, identifier: str) -> BlobFile | None:
        """The file for a blob in this upload session's folder; None where nothing is to be written there.

        Raises NoSpace.
        """
        folder = self._v2 / "repositories" / repository / "_uploads" / identifier
        if not self._usable or not identifier.replace("-", "").isalnum():
            return None
        try:
            owner = await asyncio.to_thread(folder.stat)
            as_owner, path = _As(owner.st_uid, owner.st_gid), folder / _NAME
            descriptor = await self._run(partial(as_owner.create, path))
        except OSError as problem:
            if problem.errno in _FULL:
                raise self._failure(problem) from problem
            self.give_up(str(problem))
            return None
        if not self._told:
            self._told = True
            self._log.info("large blobs are written into the registry's storage", folder=str(self._v2))
        return BlobFile(path, as_owner, descriptor, self._hashing)

    def give_up(self, why: str) -> None:
        """From now on everything is uploaded over HTTP, until the next start."""
        self._usable = False
        self._log.warning("blobs are not written into the registry's storage", folder=str(self._v2), why=why)

    def _failure(self, problem: OSError) -> CyroidError:
        """The error for what could not be written."""
        if problem.errno in _FULL:
            return NoSpace(f"the disk of the registry's storage {self._v2} is full: make room, or collect its garbage")
        self.give_up(str(problem))
        return TransferFailed(f"the registry's storage {self._v2} cannot be written: {problem}")

    async def _run(self, step: Callable[[], T], *, size_bytes: int = 0) -> T:
        """A blocking step in a thread for writing. Raises OSError, Stalled."""
        try:
            async with asyncio.timeout(self._stall_seconds + size_bytes / _SLOW_DISK_BYTES):
                return await asyncio.get_running_loop().run_in_executor(self._pool, step)
        except TimeoutError as late:
            raise Stalled(f"the registry's storage {self._v2} took nothing for {self._stall_seconds:g} s") from late

    async def write(
        self, file: BlobFile, repository: str, digest: BlobDigest, *, size_bytes: int | None, chunks: Chunks
    ) -> str:
        """Write a whole blob and make it visible; its digest. Raises WrongContent, NoSpace, TransferFailed, Stalled."""
        if isinstance(chunks, ThreadChunks):
            await self._moved(file, chunks)
        else:
            async for chunk in chunks:
                await self._written(partial(file.add, chunk))
        wanted = digest if isinstance(digest, str) else digest()
        file.check(wanted, size_bytes)
        digits = wanted.removeprefix("sha256:")
        blob = self._v2 / "blobs/sha256" / digits[:2] / digits / "data"
        link = self._v2 / "repositories" / repository / "_layers/sha256" / digits / "link"
        await self._written(partial(file.publish, blob, link, wanted), size_bytes=file.size_bytes)
        return wanted

    async def _moved(self, file: BlobFile, chunks: ThreadChunks) -> None:
        """Have the thread that reads the chunks write them. Raises TransferFailed, NoSpace, Stalled."""

        def add(chunk: bytes) -> None:
            try:
                file.add(chunk)
            except OSError as problem:
                raise self._failure(problem) from problem

        moving = asyncio.ensure_future(chunks.each(add))
        try:
            before = -1
            while not moving.done():
                if file.size_bytes == before:
                    raise Stalled(f"nothing came into the registry's storage {self._v2} for {self._stall_seconds:g} s")
                before = file.size_bytes
                await asyncio.wait({moving}, timeout=self._stall_seconds)
        finally:
            moving.cancel()
            await asyncio.wait({moving})
        await moving

    async def _written(self, step: Callable[[], None], *, size_bytes: int = 0) -> None:
        try:
            await self._run(step, size_bytes=size_bytes)
        except OSError as problem:
            raise self._failure(problem) from problem


class BlobFile:
    """A blob's file in an upload session, open for writing. Steps block, and hold the lock: the caller may have left
    while a step was under way.
    """

    def __init__(self, path: Path, owner: _As, descriptor: int, hashing: Executor) -> None:
        self._path = path
        self._owner = owner
        self._descriptor: int | None = descriptor
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashing = hashing
        self._hashed: Future[None] | None = None
        self._begun_bytes = 0
        self.size_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Write and hash one more chunk: hashed while it is written and the next one is read. Raises OSError."""
        with self._lock:
            if self._descriptor is None:
                return
            self._wait_for_hash()
            self._hashed = self._hashing.submit(self._hash.update, chunk)
            write_sparse(self._descriptor, chunk, self.size_bytes)
            self.size_bytes += len(chunk)
            if self.size_bytes - self._begun_bytes >= _BEGIN_BYTES:
                start, length = ctypes.c_int64(self._begun_bytes), ctypes.c_int64(self.size_bytes - self._begun_bytes)
                _LIBC.sync_file_range(self._descriptor, start, length, _BEGIN)  # advice: what it says does not matter
                self._begun_bytes = self.size_bytes

    def _wait_for_hash(self) -> None:
        if self._hashed is not None:
            self._hashed.result()

    def check(self, digest: str, size_bytes: int | None) -> None:
        """Raises WrongContent where the bytes are not what was announced. Blocks for the hash of one chunk at most."""
        self._wait_for_hash()
        if size_bytes is not None and size_bytes != self.size_bytes:
            raise WrongContent(f"the blob {digest} was to have {size_bytes} bytes, its source gave {self.size_bytes}")
        found = f"sha256:{self._hash.hexdigest()}"
        if found != digest:
            raise WrongContent(f"the blob {digest} was to be uploaded, its source gave {found}")

    def publish(self, blob: Path, link: Path, digest: str) -> None:
        """Sync the bytes, then give them the blob's name and the repository its link. Raises OSError."""
        with self._lock, self._owner:
            if self._descriptor is None:
                return
            os.ftruncate(self._descriptor, self.size_bytes)  # what ends with a hole
            os.fsync(self._descriptor)
            blob.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # somebody else's upload of it was faster
                os.link(self._path, blob)
            _sync(blob.parent)
            link.parent.mkdir(parents=True, exist_ok=True)
            written = link.with_name(f".link.{uuid.uuid4().hex}")
            try:
                with written.open("x") as file:
                    file.write(digest)
                    file.flush()
                    os.fsync(file.fileno())
                written.rename(link)
            finally:
                written.unlink(missing_ok=True)
            _sync(link.parent)

    def close(self) -> None:
        """Nothing is written any more. Its bytes go with the session's folder."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def remove(self) -> None:
        """Remove the session's folder, which has ended. What cannot be removed is purged later."""
        with self._lock, self._owner:
            shutil.rmtree(self._path.parent, ignore_errors=True)


class _As:
    """Files are made and reached as this user, in the thread that enters. Raises PermissionError where it may not."""

    def __init__(self, uid: int, gid: int) -> None:
        self._uid, self._gid = uid, gid
        self._before: list[tuple[int, int]] = []

    def __enter__(self) -> None:
        before = (_LIBC.setfsuid(_ASK), _LIBC.setfsgid(_ASK))
        self._set(self._uid, self._gid)
        if (_LIBC.setfsuid(_ASK), _LIBC.setfsgid(_ASK)) != (self._uid, self._gid):
            self._set(*before)
            raise PermissionError(
                errno.EPERM, f"this process may not write as user {self._uid}, who owns the storage (CAP_SETUID)"
            )
        self._before.append(before)

    def __exit__(self, *_: object) -> None:
        self._set(*self._before.pop())

    @staticmethod
    def _set(uid: int, gid: int) -> None:
        _LIBC.setfsgid(ctypes.c_uint(gid))
        _LIBC.setfsuid(ctypes.c_uint(uid))

    def create(self, path: Path) -> int:
        """A new file, open for writing. Raises OSError."""
        with self:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
