"""Since when each blob is unreferenced: remembered between collections, in one file beside the registry's content.

A blob that is referenced again starts anew. Files' own times are not enough: a reference that ended leaves no trace in
the times of the blob it was to. A disk without room for the file is no error: nothing new ripens, what is ripe goes.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection
from pathlib import Path

import msgspec

from events.malformed import MALFORMED


class UnreferencedSince:
    """`folder` is made when it is first written to. Times are seconds since the epoch."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "unreferenced.json"

    def ripe(self, names: Collection[str], *, now: float, grace_seconds: float, remember: bool) -> set[str]:
        """Those of `names` that were unreferenced a grace ago already; with `remember`, the others start to count now.

        A clock that leapt backwards starts them anew.
        """
        before = self._read()
        since = {name: min(before.get(name, now), now) for name in names}
        if remember and since != before:
            self._write(since)
        return {name for name, moment in since.items() if now - moment >= grace_seconds}

    def _read(self) -> dict[str, float]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, float])
        except (FileNotFoundError, *MALFORMED):
            return {}

    def _write(self, since: dict[str, float]) -> None:
        written = self._file.with_name(f"{self._file.name}.{uuid.uuid4().hex}")
        try:
            self._file.parent.mkdir(exist_ok=True)
            written.write_bytes(msgspec.json.encode(since))
            os.replace(written, self._file)
        except OSError:
            written.unlink(missing_ok=True)
