"""EROFS images for a layer: an index that says where each file lies in the layer's own tar, made by `mkfs.erofs`; the
tar as one file; and its tar-split (`services.adapters.tar_split_batches`).

The tar is not trusted. So both programs read it as a user without any right, from an open
descriptor, and within limits of time, memory and size; they write to a descriptor as well. An index is checked,
mended (`services.core.mounts.erofs_root`) and put in place under its final name.

Needs erofs-utils 1.8 or newer (`--tar=i`), and setpriv and prlimit of util-linux.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO
from uuid import uuid4

from services.adapters.index_limits import BeyondLimits
from services.adapters.limited_programs import Limits, run
from services.adapters.tar_split_batches import TarSplitBatches
from services.core.mounts.erofs_blob import single_file_image, tail_bytes
from services.core.mounts.erofs_files import files_image
from services.core.mounts.erofs_root import (
    BUILD_TIME,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_OFFSET,
    mended_mode,
    root_inode_offset,
)
from services.errors import LayersNotMounted

_NOBODY = 65534
_VERSION = re.compile(r"\b(\d+)\.(\d+)")
_NEEDED = (1, 8)
_INODE_BYTES = 64
#: Endings of a layer's images.
_OF_LAYERS = frozenset({"erofs", "blob", "split"})
#: Of what nobody waits for yet. Not lower: somebody may begin to wait for it.
_NICE = 5
#: Files of an image with a tar-split.
SPLIT_NAME, SIZE_NAME = "tar-split.json.gz", "size"


class IndexMaker:
    """Indexes in `folder`, one per layer, made once. `program` is mkfs.erofs."""

    def __init__(
        self,
        folder: Path,
        *,
        program: str = "mkfs.erofs",
        seconds: float = 120.0,
        memory_bytes: int = 2 * 1024**3,
        index_limit_bytes: int = 1024**3,
        parallel: int = 2,
        unused_limit_bytes: int = 1024**3,
    ) -> None:
        self._folder = folder
        self._program = program
        self._limits = Limits(seconds=seconds, memory_bytes=memory_bytes, output_bytes=index_limit_bytes)
        self._parallel = asyncio.Semaphore(parallel)
        self._unused_limit = unused_limit_bytes
        self._making: dict[str, asyncio.Lock] = {}
        self._beyond = BeyondLimits()
        self._splits = TarSplitBatches(self._run_splitter, self._parallel)
        self._prepared_splits = TarSplitBatches(partial(self._run_splitter, nice=_NICE), self._parallel)

    async def check(self) -> None:
        """Raises LayersNotMounted, with what to do, where the program is missing or too old."""
        if shutil.which(self._program) is None:
            raise LayersNotMounted(f"there is no {self._program}: install erofs-utils 1.8 or newer")
        _status, said = await run([self._program, "-V"], seconds=self._limits.seconds)
        found = _VERSION.search(said)
        if found is None or (int(found[1]), int(found[2])) < _NEEDED:
            raise LayersNotMounted(f"mkfs.erofs is too old ({said[:80]!r}): install erofs-utils 1.8 or newer")

    async def files(self, name: str, tar: Path) -> Path:
        """The index of the files in the layer whose tar is `tar`. Raises LayersNotMounted."""
        return await self._once(self._folder / f"{name}.erofs", tar, self._make)

    async def split(self, name: str, tar: Path) -> Path:
        """An image with the layer's tar-split and its size, as a classic store has them. Raises LayersNotMounted."""
        return await self._once(self._folder / f"{name}.split", tar, partial(self._make_split, self._splits))

    async def prepare(self, name: str, tar: Path) -> None:
        """The layer's images beforehand, by programs of a low priority. Raises LayersNotMounted."""
        await self._once(self._folder / f"{name}.erofs", tar, partial(self._make, nice=_NICE))
        await self._once(self._folder / f"{name}.split", tar, partial(self._make_split, self._prepared_splits))

    async def _once(self, made: Path, tar: Path, make: Callable[[Path, Path], Awaitable[None]]) -> Path:
        async with self._making.setdefault(made.name, asyncio.Lock()):
            if not await asyncio.to_thread(made.exists):
                try:
                    await make(made, tar)
                except (OSError, ValueError) as problem:
                    raise LayersNotMounted(f"no {made.suffix[1:]} image of {tar} can be made: {problem}") from problem
        self._making.pop(made.name, None)
        return made

    async def blob(self, name: str, tar: Path) -> Path:
        """An image with the whole blob as its only file; `tar` is the blob. Raises LayersNotMounted."""
        made = self._folder / f"{name}.blob"
        if not made.exists():
            scratch = made.with_suffix(f".{uuid4().hex}.new")
            try:
                await asyncio.to_thread(lambda: _write(scratch, _shown_whole(tar)))
                scratch.rename(made)
            except (OSError, ValueError) as problem:
                scratch.unlink(missing_ok=True)
                raise LayersNotMounted(f"{tar} cannot be shown: {problem}") from problem
        return made

    def clean(
        self, needed: frozenset[str], *, since: Callable[[str], float | None], reserved: Callable[[str], bool]
    ) -> None:
        """Remove temporary files of an interrupted run, and images whose names are not `needed`. Blocking.

        What is `reserved` stays, by the hex digits in its name; so do those of a blob that is there, unless it was
        written anew meanwhile (`since`, by the same): the newest, up to `unused_limit_bytes`.
        """
        spare = list[tuple[float, int, Path]]()
        for entry in self._folder.iterdir():
            digits, _, ending = entry.name.partition(".")
            if entry.name in needed or reserved(digits):
                continue
            written, status = since(digits) if ending in _OF_LAYERS else None, entry.stat()
            if written is not None and written <= status.st_mtime:
                spare.append((status.st_mtime, status.st_size, entry))
            else:
                entry.unlink(missing_ok=True)
        kept_bytes = 0
        for _, size_bytes, entry in sorted(spare, reverse=True):
            kept_bytes += size_bytes
            if kept_bytes > self._unused_limit:
                entry.unlink(missing_ok=True)

    async def _make(self, made: Path, tar: Path, *, nice: int = 0) -> None:
        made.parent.mkdir(parents=True, exist_ok=True)
        scratch = made.with_suffix(f".{uuid4().hex}.new")
        try:
            with tar.open("rb") as source, scratch.open("x+b") as target:
                os.fchown(target.fileno(), _NOBODY, _NOBODY)  # the program opens /proc/self/fd/1 by its own right
                with self._beyond.noted(made.name, source):
                    async with self._parallel:
                        status, said = await run(
                            self._command(nice), seconds=self._limits.seconds, stdin=source, stdout=target
                        )
                    self._limits.check(status)
                if status:
                    raise LayersNotMounted(f"mkfs.erofs cannot index {tar} (status {status}): {said[-300:].strip()}")
                _mend(target, tar)
                os.fchown(target.fileno(), 0, 0)
                os.fchmod(target.fileno(), 0o400)
                os.fsync(target.fileno())
            scratch.rename(made)
        finally:
            scratch.unlink(missing_ok=True)

    async def _make_split(self, splits: TarSplitBatches, made: Path, tar: Path) -> None:
        made.parent.mkdir(parents=True, exist_ok=True)
        scratch = made.with_suffix(f".{uuid4().hex}.new")
        try:
            with tar.open("rb") as source, tempfile.TemporaryFile(dir=made.parent) as target:
                try:
                    size = await splits.split(source, target)
                except LayersNotMounted as problem:
                    raise LayersNotMounted(f"{tar} has no tar-split: {problem}") from problem
                target.seek(0)
                content = {SPLIT_NAME: target.read(), SIZE_NAME: str(size).encode()}
                await asyncio.to_thread(_write, scratch, files_image(content))
            scratch.rename(made)
        finally:
            scratch.unlink(missing_ok=True)

    async def _run_splitter(self, command: list[str], descriptors: Sequence[int], *, nice: int = 0) -> tuple[int, str]:
        return await run([*self._limits.command(nice), *command], seconds=self._limits.seconds, keep=descriptors)

    def _command(self, nice: int) -> list[str]:
        """The command line: as nobody, without rights, within limits.

        `--aufs` turns the tar's whiteouts into overlay's.
        """
        user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        options = ["--quiet", "--tar=i", "--aufs", "-Enosbcrc", f"-T{BUILD_TIME}", "--mkfs-time"]
        return [
            *self._limits.command(nice),
            *("setpriv", *user, *rights, "--"),
            *(self._program, *options, "/proc/self/fd/1"),
        ]


def _mend(image: IO[bytes], tar: Path) -> None:
    """Check what was written, and give the root folder the mode that an engine gives it."""
    try:
        image.seek(SUPERBLOCK_OFFSET)
        superblock = image.read(SUPERBLOCK_BYTES)
        offset = root_inode_offset(superblock)
        image.seek(offset)
        inode = image.read(_INODE_BYTES)
        mended = mended_mode(superblock, inode)
    except ValueError as problem:
        raise LayersNotMounted(f"mkfs.erofs made no index of {tar}: {problem}") from problem
    if mended is not None:
        image.seek(offset)
        image.write(mended)
        image.flush()


def _shown_whole(blob: Path) -> bytes:
    """The image for a blob, with its end where that is no whole block. Raises OSError, ValueError."""
    with blob.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        tail = tail_bytes(size_bytes)
        file.seek(size_bytes - tail)
        return single_file_image(size_bytes, file.read(tail) if tail else b"")


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
