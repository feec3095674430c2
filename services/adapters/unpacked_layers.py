"""Decompressed copies of layers that the registry holds compressed: a tar each, in a folder of the layer-mounter.

    FOLDER/<diff id>.<digest>.<bytes>     the tar of a layer, whole, by its diff ID, its blob and its size

A copy is made once, for all ranges, by a program without rights (`services.adapters.layer_unpacker`) whose output is
hashed and written here. It gets its name when it is on the disk and is the layer: its SHA-256 is the diff ID. Blocks of
zeros are holes, so a layer that is one large empty file takes no disk. The size in the name tells a copy that was cut.

The content may be made to harm: what is unpacked is bounded in size and time, and stops while the disk has a reserve.
What was refused for its content is not tried again for a while (`services.adapters.index_limits`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from events.messages import Layer
from services.adapters.index_limits import BeyondLimits, ContentRefused
from services.adapters.layer_unpacking import Unpacking
from services.core.mounts.layer_mounts import blob_name, hex_digits
from services.errors import LayersNotMounted

_TELL_SECONDS = 0.25
#: Of what nobody waits for yet.
_NICE = 5

Read = Callable[[str, int], None]
"""Told how many bytes of a blob, by its digest, were read so far."""


def unheard(digest: str, read_bytes: int) -> None:
    """Nobody waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """Limits of the copies.

    layer_bytes             the most that one layer may have when it is unpacked
    unused_bytes            the most that copies which no range is shown may take, the newest first
    free_bytes, free_percent  what is kept free on the disk, the larger of both
    parallel                how many layers are unpacked at a time
    """

    layer_bytes: int = 64 * 1024**3
    unused_bytes: int = 10 * 1024**3
    free_bytes: int = 256 * 1024**2
    free_percent: float = 5.0
    parallel: int = 2


class UnpackedLayers:
    """Copies in `folder`. One process at a time has it. `enabled`: whether new ones may be made."""

    def __init__(self, folder: Path, *, limits: UnpackLimits | None = None, enabled: bool = True) -> None:
        self._folder = folder
        self._limits = limits or UnpackLimits()
        self._enabled = enabled
        self._parallel = asyncio.Semaphore(self._limits.parallel)
        self._making: dict[str, asyncio.Lock] = {}
        self._hearing: dict[str, list[Read]] = {}
        self._refused = BeyondLimits(what="unpacked copy")

    async def tar(self, layer: Layer, blob: Path, *, read: Read = unheard, beforehand: bool = False) -> Path:
        """The layer's tar; it is made out of `blob` if it is not there. Raises LayersNotMounted.

        beforehand  nobody waits for it yet: by a program of a low priority, and not what would not be kept
        """
        with self._heard(layer.digest, read):
            return await self._once(layer, blob, beforehand)

    async def _once(self, layer: Layer, blob: Path, beforehand: bool) -> Path:
        name = blob_name(layer)
        async with self._making.setdefault(name, asyncio.Lock()):
            found = await asyncio.to_thread(self.find, layer)
            if found is None:
                if not self._enabled:
                    raise LayersNotMounted(
                        f"the registry holds layer {layer.diff_id} compressed ({layer.codec}), and"
                        " CYROID_MOUNT_COMPRESSED is off",
                        code="layers_unmountable",
                    )
                try:
                    found = await self._make(layer, blob, beforehand)
                except OSError as problem:
                    raise LayersNotMounted(f"{blob} cannot be unpacked: {problem}") from problem
        self._making.pop(name, None)
        return found

    def find(self, layer: Layer) -> Path | None:
        """The copy, if it is there and whole. Blocking."""
        return next((path for path in self._copies(layer) if _is_whole(path)), None)

    def path(self, layer: Layer) -> Path:
        """Where the copy is, or would be if there were one. Blocking."""
        return self.find(layer) or self._folder / blob_name(layer)

    def cut(self, layer: Layer) -> list[Path]:
        """Copies of the layer that lost a part. Blocking."""
        return [path for path in self._copies(layer) if not _is_whole(path)]

    def has(self, diff_digits: str) -> bool:
        """Whether there is a copy of any blob of this layer. Blocking."""
        return any(self._folder.glob(f"{diff_digits}.{'?' * 64}.*[0-9]"))

    def clean(self, needed: frozenset[str], *, reserved: Callable[[str], bool], blob: Callable[[str], bool]) -> None:
        """Remove temporary files of an interrupted run, and copies that are not `needed` (`blob_name`). Blocking.

        What is `reserved`, by the digits of its diff ID, stays; so do copies whose blob is there, by its digits: the
        last used, up to the limit.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        spare = list[tuple[float, int, Path]]()
        for entry in self._folder.iterdir():
            diff_digits, _, rest = entry.name.partition(".")
            digits, _, size = rest.partition(".")
            if reserved(diff_digits):
                continue
            if not size.isdigit():
                entry.unlink(missing_ok=True)
            elif f"{diff_digits}.{digits}" in needed:
                os.utime(entry)  # what was used until now is newer than what was made ready
            elif blob(digits):
                status = entry.stat()
                spare.append((status.st_mtime, status.st_blocks * 512, entry))
            else:
                entry.unlink(missing_ok=True)
        kept_bytes = 0
        for _, disk_bytes, entry in sorted(spare, reverse=True):
            kept_bytes += disk_bytes
            if kept_bytes > self._limits.unused_bytes:
                entry.unlink(missing_ok=True)

    # ---- inside ----

    def _copies(self, layer: Layer) -> list[Path]:
        return sorted(self._folder.glob(f"{blob_name(layer)}.*[0-9]"))

    async def _make(self, layer: Layer, blob: Path, beforehand: bool) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self.cut(layer):
            path.unlink(missing_ok=True)
        scratch = self._folder / f"{blob_name(layer)}.{uuid4().hex}.new"
        limit = self._limits.layer_bytes
        if beforehand:
            limit = min(limit, self._limits.unused_bytes)
        job = Unpacking(
            codec=layer.codec,
            target=scratch,
            limit_bytes=limit,
            check=self._check_disk,
            nice=_NICE if beforehand else 0,
        )
        try:
            with blob.open("rb") as source:
                self._check_disk(os.fstat(source.fileno()).st_size)
                with self._refused.noted(f"{blob_name(layer)}.{limit}", source):
                    async with self._parallel:
                        size_bytes, digest = await self._unpack(layer, source, job)
                    if digest != hex_digits(layer.diff_id):
                        raise ContentRefused(f"what is in it is sha256:{digest}, not {layer.diff_id}")
            made = self._folder / f"{blob_name(layer)}.{size_bytes}"
            await asyncio.to_thread(_put, scratch, made)
        finally:
            scratch.unlink(missing_ok=True)
        return made

    async def _unpack(self, layer: Layer, source: IO[bytes], job: Unpacking) -> tuple[int, str]:
        telling = asyncio.ensure_future(self._tell(layer.digest, source))
        try:
            return await job.run(source)
        finally:
            telling.cancel()

    @contextmanager
    def _heard(self, digest: str, read: Read) -> Iterator[None]:
        """All who wait for a blob hear how far it is, whoever has it unpacked."""
        hearing = self._hearing.setdefault(digest, [])
        hearing.append(read)
        try:
            yield
        finally:
            hearing.remove(read)
            if not hearing:
                self._hearing.pop(digest, None)

    async def _tell(self, digest: str, source: IO[bytes]) -> None:
        """Say how far the program is: it shares the place in the open file."""
        while True:
            for read in self._hearing.get(digest, ()):
                read(digest, os.lseek(source.fileno(), 0, os.SEEK_CUR))
            await asyncio.sleep(_TELL_SECONDS)

    def _check_disk(self, needed_bytes: int = 0) -> None:
        """Raises LayersNotMounted where the disk would have less than its reserve."""
        disk, limits = shutil.disk_usage(self._folder), self._limits
        reserve = max(limits.free_bytes, int(disk.total * limits.free_percent / 100))
        if disk.free - needed_bytes < reserve:
            raise LayersNotMounted(
                f"the disk under {self._folder} has {disk.free} bytes left, and {reserve} of them are kept free: make"
                " room there"
            )


def _put(scratch: Path, made: Path) -> None:
    """Durable: its name as well."""
    scratch.rename(made)
    descriptor = os.open(made.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(path: Path) -> bool:
    try:
        return path.stat().st_size == int(path.suffix[1:])
    except (OSError, ValueError):
        return False
