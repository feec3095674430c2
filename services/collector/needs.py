"""What a collector needs from the settings, for those who start one only where it can work. Loads nothing else."""

from __future__ import annotations

import os
from pathlib import Path

#: What a storage folder of a registry has below it; made by the registry's first push.
_CONTENT = "docker/registry/v2"


def without_collector(storage: str, *, by_api: bool) -> str | None:
    """Why no collector can work with these settings, in one sentence; None where one can."""
    if by_api:
        return "CYROID_COLLECT_BY_API and CYROID_REGISTRY_STORAGE are both set: unset one of them" if storage else None
    if not storage:
        return "CYROID_REGISTRY_STORAGE is not set (nor, for storage that is no folder here, CYROID_COLLECT_BY_API)"
    folder = Path(storage)
    if not folder.is_dir():
        return f"CYROID_REGISTRY_STORAGE: {folder} is no folder here"
    content = folder / _CONTENT
    if not content.is_dir() and any(folder.iterdir()):
        return f"CYROID_REGISTRY_STORAGE: {folder} is no storage folder of a registry: it has no {_CONTENT}"
    written = content if content.is_dir() else folder
    if not os.access(written, os.R_OK | os.W_OK | os.X_OK):
        return f"CYROID_REGISTRY_STORAGE: {written} cannot be written by this user, or is mounted read-only"
    return None
