"""What each range is shown, one JSON file per range in a folder: atomic, and durable over a power cut. Blocking."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from services.core.mounts.records import ShownLayers

_SUFFIX = ".json"


class ShownLayersFiles:
    """The records in `folder`. One process writes them; one that was read is decoded again when its file is another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[tuple[int, ...], ShownLayers]] = {}

    def read(self, range_id: str) -> ShownLayers:
        """What a range is shown; nothing where there is no record."""
        path, known = self._path(range_id), self._known.get(range_id)
        with suppress(FileNotFoundError):
            found = path.stat()
            file = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
            if known is None or known[0] != file:
                known = self._known[range_id] = (file, msgspec.json.decode(path.read_bytes(), type=ShownLayers))
            return known[1]
        self._known.pop(range_id, None)
        return ShownLayers(range_id=range_id)

    def read_all(self) -> dict[str, ShownLayers]:
        """Of every range that is shown something."""
        names = [path.name.removesuffix(_SUFFIX) for path in sorted(self._folder.glob(f"*{_SUFFIX}"))]
        return {range_id: self.read(range_id) for range_id in names}

    def write(self, record: ShownLayers) -> None:
        """Keep a record; one without layers is removed. Raises OSError."""
        path = self._path(record.range_id)
        self._known.pop(record.range_id, None)
        if record.layers:
            scratch = path.with_name(f"{path.name}.new")
            with scratch.open("wb") as file:
                file.write(msgspec.json.encode(record))
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(path)
        else:
            path.unlink(missing_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)  # the name as well
        finally:
            os.close(descriptor)

    def _path(self, range_id: str) -> Path:
        return self._folder / f"{range_id}{_SUFFIX}"
