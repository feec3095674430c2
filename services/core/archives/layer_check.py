"""Check of a layer while its archive streams: how many files it has, and how many bytes they take unpacked.

An engine unpacks each layer of an archive that it loads, so a layer of zeros packed a thousandfold, a sparse file that
claims a terabyte, or one of ten million empty files fills its disk. What is no layer, or a broken one, is left to the
engine, which refuses it without harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.core.archives.entry_rules import ArchiveLimits, BeyondLimit
from services.core.archives.packings import MAGIC_BYTES, Packing, Unpacker, packing_of, unpacker
from services.core.archives.tar_headers import BLOCK_BYTES
from services.core.archives.tar_parser import EntryStart, TarParser

#: What a file takes at least on a disk, in its own entry and its folder's.
_FILE_BYTES = BLOCK_BYTES


@dataclass(slots=True)
class Unpacked:
    """The unpacked size of all layers of an archive so far; `bound` refuses what exceeds the limits."""

    limits: ArchiveLimits
    layer_bytes: int = 0
    layer_entries: int = 0

    def add(self, size_bytes: int) -> None:
        """A file of that size. Raises BeyondLimit above the limits."""
        self.layer_entries += 1
        self.layer_bytes += _FILE_BYTES + size_bytes
        if self.layer_entries > self.limits.layer_entries:
            raise BeyondLimit(f"its layers hold more than {self.limits.layer_entries} files")
        if self.layer_bytes > self.limits.unpacked_bytes:
            raise BeyondLimit(f"its layers take more than {self.limits.unpacked_bytes} bytes when they are unpacked")


class LayerCheck:
    """`feed()` every chunk of one file of the archive. Raises BeyondLimit for a file that exceeds a limit."""

    def __init__(self, unpacked: Unpacked) -> None:
        self._unpacked = unpacked
        self._head = b""
        self._unpacker: Unpacker | None = None
        self._tar = TarParser()
        self._done = False
        self._tar_bytes = 0
        self.packing: Packing | None = None

    def feed(self, chunk: memoryview) -> None:
        """The next bytes of the file."""
        if self._done:
            return
        data: bytes | memoryview = chunk
        if self._unpacker is None:
            self._head += bytes(chunk)
            if len(self._head) < MAGIC_BYTES:
                return
            self.packing = packing_of(self._head)
            self._unpacker = unpacker(self.packing)
            data = self._head
        try:
            if self.packing == "plain":
                self._look_into(data)
                return
            for piece in self._unpacker.feed(bytes(data)):
                self._look_into(piece)
        except BeyondLimit:
            raise
        except ValueError:
            self._done = True  # broken, or no tar: the engine says so

    def _look_into(self, piece: bytes | memoryview) -> None:
        limit_bytes = self._unpacked.limits.unpacked_bytes
        self._tar_bytes += len(piece)
        for part in self._tar.feed(piece):
            if isinstance(part, EntryStart):
                self._unpacked.add(part.header.unpacked_bytes)
        if self._tar_bytes > limit_bytes:
            raise BeyondLimit(f"one of its layers is longer than {limit_bytes} bytes when it is unpacked")
