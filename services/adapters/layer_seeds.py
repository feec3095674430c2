"""Seeds of ranges as file systems: made of the registry's manifests and configs, one image file each. Blocking.

A seed is EROFS like all that ranges see: a hostile range cannot change what the engine after it starts with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import msgspec

from services.core.images.manifests import CONFIG_LIMIT_BYTES, MANIFEST_LIMIT_BYTES, Manifest, sha256
from services.core.mounts.erofs_files import files_image
from services.core.mounts.layer_mounts import hex_digits
from services.core.mounts.records import ShownLayers
from services.core.mounts.seed_images import seed_image, seed_of, seeded_by
from services.core.mounts.seeds import FILE_NAME, SeedImage
from services.core.ranges.ranges import DesiredImage
from services.errors import BadInput

#: Manifests and configs have some kilobytes; a range with more than this starts without the rest of them.
SEED_LIMIT_BYTES = 64 * 1024 * 1024
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class SeedFiles:
    """Image files `<hex>.seed` in `folder`. `blob` says where the registry's storage has a blob."""

    def __init__(self, folder: Path, *, blob: Callable[[str], Path]) -> None:
        self._folder = folder
        self._blob = blob

    def seeded(self, shown: ShownLayers, wanted: Sequence[DesiredImage]) -> ShownLayers:
        """The record with a seed of those images whose layers are shown; its image file is there. Raises OSError."""
        seed = seed_of(self._images(shown, wanted), shown)
        if seed is None:
            return msgspec.structs.replace(shown, seed="", seeded=())
        content = msgspec.json.encode(seed)
        name = hex_digits(sha256(content))
        made = self._folder / f"{name}.seed"
        if not made.exists():
            _write(made, files_image({FILE_NAME: content}))
        return msgspec.structs.replace(shown, seed=name, seeded=seeded_by(seed, wanted))

    def is_there(self, shown: ShownLayers) -> bool:
        """Whether the image file of the record's seed is there, if it has one."""
        return not shown.seed or (self._folder / f"{shown.seed}.seed").exists()

    def _images(self, shown: ShownLayers, wanted: Sequence[DesiredImage]) -> list[SeedImage]:
        found, left = list[SeedImage](), SEED_LIMIT_BYTES
        for one in wanted:
            image = self._image(one, shown)
            if image is not None and (left := left - len(image.config) - len(image.manifest)) > 0:
                found.append(image)
        return found

    def _image(self, wanted: DesiredImage, shown: ShownLayers) -> SeedImage | None:
        """None for what the registry's storage does not have as it should be."""
        with suppress(OSError, BadInput):
            manifest = Manifest.parse(self._read((wanted.source or "").rpartition("@")[2], MANIFEST_LIMIT_BYTES))
            config = self._read(manifest.body.config.digest, CONFIG_LIMIT_BYTES)
            return seed_image(wanted, manifest, config, shown)
        return None

    def _read(self, digest: str, limit: int) -> bytes:
        if not _DIGEST.fullmatch(digest):
            raise BadInput(f"{digest!r} is no digest")
        with self._blob(digest).open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise BadInput(f"{digest} has more than {limit} bytes")
        return content


def _write(path: Path, content: bytes) -> None:
    """Atomic and durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{uuid4().hex}.new")
    try:
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
