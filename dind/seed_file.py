"""The file with what a range's engine starts with, as the host shows it, and what the agent is told of it.

    SHOWN/seeds/<hex>/seed.json    images (manifest, config, layers) and the grants of their layers, for one store

Standard library only, see init.py; nothing that takes long to import, as an engine's start waits for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

#: The agent's record of what it was shown (`services.adapters.placed_layers`).
GRANTS = "cyroid-mounted-layers.json"


def find(shown: Path) -> Path | None:
    """The seed; None where the host shows none."""
    with suppress(OSError):
        for folder in sorted((shown / "seeds").iterdir()):
            if os.path.ismount(folder) and (folder / "seed.json").is_file():
                return folder / "seed.json"
    return None


def read(shown: Path, store: str) -> dict[str, Any] | None:
    """The seed, if there is one for an engine on this store. Raises OSError, ValueError."""
    file = find(shown)
    seed: dict[str, Any] = json.loads(file.read_bytes()) if file is not None else {}
    return seed if seed.get("store") == store else None


def give(root: Path, seed: Mapping[str, Any]) -> None:
    """Have the agent know the grants of the seed's layers, so that it can give them back. Raises OSError."""
    write(root / GRANTS, json.dumps({"grants": seed.get("grants", {}), "open": {}}).encode())


def write(path: Path, content: bytes) -> None:
    """Atomic and durable."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def hex_digits(digest: str) -> str:
    """`sha256:<hex>` → `<hex>`."""
    return digest.removeprefix("sha256:")
