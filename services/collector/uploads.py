"""Abandoned uploads in the registry's storage, and freeing what they take.

registry:2 keeps an upload that ran into a full disk, or whose client vanished: its PATCH ends without a location, and
at the older one the registry refuses everything, DELETE too (2.8, blobupload.go, "upload resumed at wrong offset"). It
keeps the file open as well, so that only truncating it frees its space at once. Its own purge begins up to an hour
after its start and goes by whole days, while each try of a push takes what space there is.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from services.collector.layout import RegistryLayout

#: Nothing came for so long: every client has given up by then, and the registry has ended its request.
ABANDONED_SECONDS = 3600.0
#: How often abandoned uploads are looked for.
PURGE_SECONDS = 300.0


class PurgedUploads(NamedTuple):
    """How many were removed, and what their files took."""

    uploads: int
    freed_bytes: int


def purge_uploads(layout: RegistryLayout, *, now: float) -> PurgedUploads:
    """Remove the folder of each upload to which nothing was added for `ABANDONED_SECONDS`. Blocks."""
    uploads = freed = 0
    for name in layout.repository_names():
        for folder in _uploads(layout.repositories / name / "_uploads"):
            files = [status for root, _, names in os.walk(folder) for status in _statuses(root, names)]
            if not files or now - max(status.st_mtime for status in files) < ABANDONED_SECONDS:
                continue
            with suppress(FileNotFoundError):
                os.truncate(folder / "data", 0)
            shutil.rmtree(folder, ignore_errors=True)
            uploads += 1
            freed += sum(status.st_size for status in files)
    return PurgedUploads(uploads, freed)


def _uploads(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []


def _statuses(root: str, names: list[str]) -> list[os.stat_result]:
    found = []
    for name in names:
        try:
            found.append(os.stat(os.path.join(root, name), follow_symlinks=False))
        except FileNotFoundError:
            continue  # the registry finished, or cancelled, it at this moment
    return found
