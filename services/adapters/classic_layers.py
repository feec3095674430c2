"""Mounted layers in an engine on the classic store (overlay2), which reads them at its start: the `LayerPlacer` port.

The records of layers are written by the init of the range's container while the engine is down for a moment
(`services.adapters.engine_restart`, `dind/classic_layers.py`). Here is what an engine reads while it runs: which blob
of the registry is which layer. The ordinary pull that follows then finds all layers there.

    ROOT/overlay2/<cache id>/diff → SHOWN/layers/<name>
    ROOT/image/overlay2/layerdb/sha256/<chain id>/
    ROOT/image/overlay2/distribution/{diffid-by-digest,v2metadata-by-diffid}/sha256/<hex>

Removing an image removes the links. A link whose target is not there makes the engine refuse a container.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from uuid import uuid4

import msgspec

from events.malformed import MALFORMED
from events.messages import Layer
from services.adapters.engine_restart import EngineRestart
from services.adapters.kernel_mounts import FILE_SYSTEM, not_mounted
from services.adapters.placed_layers import PlacedLayersFile
from services.core.mounts.layer_mounts import LayerMount, diff_ids_of, hex_digits, layer_mounts
from services.errors import LayersNotMounted

_IMAGE = "image/overlay2"


class Origin(msgspec.Struct, frozen=True, rename="pascal"):
    """A blob that a layer came as (moby, distribution/metadata/v2_metadata_service.go)."""

    digest: str
    source_repository: str
    hmac: str = msgspec.field(default="", name="HMAC")


class ClassicLayers:
    """`root` is the engine's data folder, `shown` what the host shows, both as the engine sees them."""

    def __init__(self, *, root: Path, shown: Path, restart: EngineRestart) -> None:
        self._root = root
        self._shown = shown
        self._restart = restart
        self._file = PlacedLayersFile(root)
        self._changing = asyncio.Lock()

    def using(self) -> AbstractAsyncContextManager[None]:
        return self._restart.using()

    async def available(self) -> bool:
        return self._restart.available() and self._shown.is_dir() and (self._root / "overlay2").is_dir()

    async def accept(self, transfer_id: str, layers: Sequence[Layer]) -> None:
        names = [mount.name for mount in layer_mounts(layers)]
        async with self._changing:
            await asyncio.to_thread(self._file.change, lambda placed: placed.accepted(transfer_id, names))

    async def place(self, transfer_id: str, layers: Sequence[Layer], source: str) -> None:
        mounts = layer_mounts(layers)
        try:
            await asyncio.to_thread(self._check, mounts)
            if not all(map(self._is_known, mounts)):
                await self._restart.place(mounts)
            await asyncio.to_thread(self._note_origins, layers, source.partition("@")[0])
        except OSError as problem:
            raise LayersNotMounted(f"the engine's store cannot be changed: {problem}") from problem

    async def settle(self, transfer_id: str) -> None:
        async with self._changing:
            with suppress(OSError):
                await asyncio.to_thread(self._file.change, lambda placed: placed.settled(transfer_id))

    async def unused(self) -> dict[str, str]:
        async with self._changing:
            return await asyncio.to_thread(lambda: self._file.read().unused(self._used()))

    async def forget(self, grants: Mapping[str, str]) -> None:
        async with self._changing:
            await asyncio.to_thread(self._file.change, lambda placed: placed.without(grants))

    async def unreadable(self) -> tuple[str, ...]:
        layers = self._shown / "layers"
        found = await asyncio.to_thread(
            lambda: not_mounted(self._shown, {layers / name for name in self._used()}, FILE_SYSTEM)
        )
        return diff_ids_of(folder.name for folder in found)

    # ---- inside ----

    def _check(self, mounts: Sequence[LayerMount]) -> None:
        """Raises LayersNotMounted for a folder that is not mounted: an empty one would be a layer without files."""
        for mount in mounts:
            layer, split = self._shown / "layers" / mount.name, self._shown / "splits" / hex_digits(mount.layer.diff_id)
            for folder in (layer, split):
                if not os.path.ismount(folder):
                    raise LayersNotMounted(f"{folder} is not mounted: see the host's layer-mounter")

    def _is_known(self, mount: LayerMount) -> bool:
        """Whether the engine has the layer: it writes, or the init wrote it before the engine's start."""
        record = self._root / _IMAGE / "layerdb/sha256" / hex_digits(mount.chain_id)
        try:
            cache = self._root / "overlay2" / (record / "cache-id").read_text().strip()
            return bool((cache / "link").read_text()) and (cache / "diff").exists()
        except (OSError, ValueError):
            return False

    def _note_origins(self, layers: Sequence[Layer], repository: str) -> None:
        distribution = self._root / _IMAGE / "distribution"
        for layer in dict.fromkeys(layers):
            origins = distribution / "v2metadata-by-diffid/sha256" / hex_digits(layer.diff_id)
            known = origins_of(origins.read_bytes()) if origins.exists() else []
            origin = Origin(layer.digest, repository)
            if origin not in known:
                _write(origins, msgspec.json.encode([*known, origin]))
            _write(distribution / "diffid-by-digest/sha256" / hex_digits(layer.digest), layer.diff_id.encode())

    def _used(self) -> Iterator[str]:
        """Names of the folders that links of the store lead to."""
        for folder in (self._root / "overlay2").glob("*"):
            link = folder / "diff"  # not in the pattern: that finds no link whose target is not there
            if link.is_symlink() and (target := link.readlink()).parent == self._shown / "layers":
                yield target.name


def origins_of(content: bytes) -> list[Origin]:
    """What an engine noted; nothing where that cannot be read."""
    try:
        return msgspec.json.decode(content, type=list[Origin])
    except MALFORMED:
        return []


def _write(path: Path, content: bytes) -> None:
    """Atomic, as the engine reads it while it runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid4().hex}")
    scratch.write_bytes(content)
    scratch.rename(path)
