"""Decompression of one blob into a file: a program without rights unpacks it (`services.adapters.layer_unpacker`), and
what it gives is counted, hashed and written here, side by side with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.adapters.index_limits import ContentRefused, LimitReached
from services.adapters.limited_programs import Limits, program, run
from services.adapters.sparse_file import write_sparse

#: Time for a blob: this, and as much more as it takes to read it at this speed.
_SECONDS, _BYTES_PER_SECOND = 120.0, 4 * 1024**2
_MEMORY_BYTES = 1024**3
_CHUNK_BYTES = 1 << 20
_CHECK_EVERY_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacking:
    """One blob, `gzip` or `zstd`, into the new file `target`, of `limit_bytes` at most.

    check  called now and then; it raises LayersNotMounted where there is no more room
    """

    codec: str
    target: Path
    limit_bytes: int
    check: Callable[[], None]
    nice: int = 0

    async def run(self, source: IO[bytes]) -> tuple[int, str]:
        """Size and SHA-256 (digits) of what is in `source`, when it is durable. Raises LayersNotMounted, OSError."""
        seconds = _SECONDS + os.fstat(source.fileno()).st_size / _BYTES_PER_SECOND
        limits = Limits(seconds=seconds, memory_bytes=_MEMORY_BYTES, output_bytes=0)
        command = [*limits.command(self.nice), *program("services.adapters.layer_unpacker"), self.codec]
        reading, writing = os.pipe()
        taking = asyncio.ensure_future(asyncio.to_thread(self._take, reading))
        taking.add_done_callback(lambda done: done.cancelled() or done.exception())  # another problem may be told
        try:
            status, said = await run(command, seconds=seconds, stdin=source, stdout=writing)
        finally:
            os.close(writing)  # the program has ended: so does what takes from it
            await asyncio.wait([taking])
        taken = taking.result()
        limits.check(status)
        if status:
            raise ContentRefused(said[-300:].strip() or f"the program ended (status {status})")
        return taken

    def _take(self, reading: int) -> tuple[int, str]:
        """Write what comes, zeros as holes; its size and digest. Blocking; closes `reading`."""
        digest, size_bytes, checked_at = hashlib.sha256(), 0, 0
        with open(reading, "rb", buffering=_CHUNK_BYTES) as source, self.target.open("xb", buffering=0) as target:
            os.fchmod(target.fileno(), 0o400)
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                write_sparse(target.fileno(), chunk, size_bytes)
                size_bytes += len(chunk)
                if size_bytes > self.limit_bytes:
                    raise LimitReached(f"it has more than {self.limit_bytes} bytes when it is unpacked")
                if size_bytes - checked_at >= _CHECK_EVERY_BYTES:
                    self.check()
                    checked_at = size_bytes
            target.truncate(size_bytes)
            os.fsync(target.fileno())
        return size_bytes, digest.hexdigest()
