"""What a range's engine starts with: images that the host shows, put into the engine's data before its first start.

    SHOWN/seeds/<hex>/seed.json    images (manifest, config, layers) and the grants of their layers, for one store

An engine on the classic store finds them as records of its own, written here while it does not run. For one on
containerd's store a program does it (`containerd_seed.py`), since containerd takes images over gRPC alone; the engine
starts when that has ended. What cannot be put in place comes later, as it does to any range. Standard library only, see
init.py.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import classic_layers
import seed_file

#: A program that takes longer is killed: the engine starts with what is there by then.
PROGRAM_SECONDS = 20.0
_IMAGE = "image/overlay2"


class Seeding:
    """One life of the init. `program` puts the seed into containerd's store; none where the engine is on the classic
    one.
    """

    def __init__(self, *, shown: Path, root: Path, program: Sequence[str], say: Callable[[str], None]) -> None:
        self._shown = shown
        self._root = root
        self._program = list(program)
        self._say = say
        self._is_over = not is_fresh(root)
        self._running: subprocess.Popen[bytes] | None = None
        self._until = 0.0

    def is_over(self, now: float) -> bool:
        """Begin, or go on; whether the engine may start."""
        if self._is_over:
            return True
        if self._running is not None:
            self._is_over = self._running.poll() is not None
            if not self._is_over and now >= self._until:
                self._running.kill()
                self._is_over = True
        elif seed_file.find(self._shown) is None:
            self._is_over = True
        elif self._program:
            self._is_over = not self._start(now)
        else:
            self._is_over = True
            self._place()
        return self._is_over

    def _start(self, now: float) -> bool:
        try:
            self._running = subprocess.Popen(self._program, stdin=subprocess.DEVNULL)
        except OSError as problem:
            self._say(f"the engine is not seeded: {problem}")
            return False
        self._until = now + PROGRAM_SECONDS
        return True

    def _place(self) -> None:
        try:
            names = place(self._root, self._shown, self._say)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:  # whatever the file has
            self._say(f"the engine is not seeded: {problem}")
        else:
            self._say(f"the engine starts with {len(names)} images")


def is_fresh(root: Path) -> bool:
    """Whether no engine ran on this data yet: each makes this folder when it starts."""
    return not (root / "containers").exists()


def place(root: Path, shown: Path, say: Callable[[str], None] = print) -> list[str]:
    """Make the seed's images known to an engine on the classic store, before its first start; their names.

    May run again after it was cut off. Raises OSError, ValueError, KeyError.
    """
    seed = seed_file.read(shown, "classic")
    if seed is None:
        return []
    for folder, mode in (("overlay2", 0o710), ("image", 0o700), (_IMAGE, 0o700)):
        (root / folder).mkdir(mode=mode, parents=True, exist_ok=True)
    names: dict[str, dict[str, str]] = {}
    for image in seed["images"]:
        try:
            classic_layers.place(root, shown, image["layers"])
        except (OSError, ValueError, KeyError) as problem:
            say(f"the engine is not seeded with {image['reference']}: {problem}")
            continue
        seed_file.write(
            root / _IMAGE / "imagedb/content/sha256" / seed_file.hex_digits(image["image_id"]),
            base64.b64decode(image["config"]),
        )
        _note_origins(root / _IMAGE / "distribution", image["layers"], image["repository"])
        names.setdefault(image["name"], {})[f"{image['name']}:{image['tag']}"] = image["image_id"]
    seed_file.give(root, seed)
    seed_file.write(root / _IMAGE / "repositories.json", json.dumps({"Repositories": names}).encode())
    return [name for tags in names.values() for name in tags]


def _note_origins(folder: Path, layers: Iterable[Mapping[str, Any]], repository: str) -> None:
    """The blobs that the layers are in the registry, so that a later pull knows them."""
    for layer in layers:
        origin = [{"Digest": layer["digest"], "SourceRepository": repository, "HMAC": ""}]
        seed_file.write(
            folder / "v2metadata-by-diffid/sha256" / seed_file.hex_digits(layer["diff_id"]), json.dumps(origin).encode()
        )
        seed_file.write(
            folder / "diffid-by-digest/sha256" / seed_file.hex_digits(layer["digest"]), layer["diff_id"].encode()
        )
