"""Files on the host's disk that stand behind views of layers: the registry's blobs, decompressed copies, EROFS images.

A layer that the registry holds raw is mounted from its blob. One that it holds compressed is unpacked first
(`services.adapters.unpacked_layers`), and mounted from that copy; its blob is shown as well where an engine keeps it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from events.messages import Layer
from services.adapters.erofs_index import IndexMaker
from services.adapters.layer_views import Kind, View, index_of, kind_of, problem_of
from services.adapters.unpacked_layers import Read, UnpackedLayers, unheard
from services.core.images.image import Store
from services.core.mounts.layer_mounts import blob_name, hex_digits, is_compressed
from services.core.mounts.problems import MountProblem, blob_problem
from services.core.mounts.records import ShownLayers
from services.errors import LayersNotMounted

_BLOBS = "docker/registry/v2/blobs/sha256"


class LayerImages:
    """`folder` has the images, `storage` is the registry's storage folder, for reading."""

    def __init__(self, folder: Path, *, storage: Path, indexes: IndexMaker, unpacked: UnpackedLayers) -> None:
        self._folder = folder
        self._storage = storage
        self._indexes = indexes
        self._unpacked = unpacked
        self._reserved: Counter[str] = Counter()

    async def check(self) -> None:
        """Raises LayersNotMounted where nothing can be made here."""
        await self._indexes.check()
        if not (self._storage.is_absolute() and self._storage.is_dir()):
            raise LayersNotMounted(
                f"the registry's storage {str(self._storage)!r} is not here: see CYROID_REGISTRY_STORAGE"
            )

    @contextmanager
    def reserved(self, layers: Iterable[Layer]) -> Iterator[None]:
        """Nothing of these layers is cleaned meanwhile: neither their images nor what these are made in."""
        held = Counter({hex_digits(digest) for layer in layers for digest in (layer.diff_id, layer.digest)})
        self._reserved += held
        try:
            yield
        finally:
            self._reserved -= held

    async def make_all(self, layers: Sequence[Layer], store: Store, read: Read = unheard) -> None:
        """What is mounted for these layers, some at a time. Raises LayersNotMounted, when all have ended."""
        made = [self.make(layer, "layers", kind_of(store), read=read) for layer in dict.fromkeys(layers)]
        for problem in await asyncio.gather(*made, return_exceptions=True):
            if problem is not None:
                raise problem

    async def make(self, layer: Layer, *kinds: Kind, read: Read = unheard) -> None:
        """What is mounted for views of these kinds. Raises LayersNotMounted."""
        digits = hex_digits(layer.diff_id)
        for kind in kinds:
            if kind == "blobs":
                await self._indexes.blob(hex_digits(layer.digest), self.blob(layer.digest))
            elif kind == "layers":
                await self._indexes.files(digits, await self._tar(layer, read))
            else:
                await self._indexes.split(digits, await self._tar(layer, read))

    async def prepare(self, layer: Layer) -> None:
        """All of it beforehand, for either store, by programs of a low priority. Raises LayersNotMounted."""
        blob, tar = self.blob(layer.digest), self.blob(layer.digest)
        with self.reserved([layer]):
            if is_compressed(layer):
                tar = await self._unpacked.tar(layer, blob, beforehand=True)
            await self._indexes.prepare(hex_digits(layer.diff_id), tar)
            await self._indexes.blob(hex_digits(layer.digest), blob)

    async def unpack(self, records: Iterable[ShownLayers]) -> None:
        """Decompressed copies that are missing behind what is shown. What cannot be made is told by its views."""
        for layer in {one.layer for shown in records for one in shown.layers.values() if is_compressed(one.layer)}:
            with suppress(LayersNotMounted):
                await self._tar(layer, unheard)

    # ---- blocking ----

    def mounted_from(self, view: View, layer: Layer | None) -> tuple[Path, Path | None]:
        """The image for a view, and the file that has its data, which may be missing."""
        index = self._folder / index_of(view, layer)
        if layer is None or view.kind == "splits":
            return index, None
        if view.kind == "layers" and is_compressed(layer):
            return index, self._unpacked.path(layer)
        return index, self.blob(layer.digest)

    def cut(self, records: Iterable[ShownLayers]) -> dict[Layer, list[Path]]:
        """Decompressed copies behind what is shown that lost a part."""
        layers = {one.layer for shown in records for one in shown.layers.values() if is_compressed(one.layer)}
        return {layer: paths for layer in layers if (paths := self._unpacked.cut(layer))}

    def problems(self, shown: ShownLayers, told: Set[str]) -> Iterator[MountProblem]:
        """Blobs behind what a range is shown that are gone or cut off, but for layers that were `told`."""
        for layer in dict.fromkeys(one.layer for one in shown.layers.values()):
            try:
                found = self.blob(layer.digest).stat().st_size
            except OSError:
                found = None
            why = blob_problem(layer, found) if layer.diff_id not in told else None
            if why is not None:
                yield problem_of(shown, layer, why)

    def clean(self, used: Iterable[tuple[View, Layer | None]]) -> None:
        """Remove what stands behind none of these views, up to what is kept for later ones."""
        views = list(used)
        self._unpacked.clean(
            frozenset(blob_name(layer) for _, layer in views if layer is not None),
            reserved=self._reserved.__contains__,
            blob=lambda digits: self._blob_since(digits) is not None,
        )
        self._indexes.clean(
            frozenset(index_of(*one) for one in views), since=self._since, reserved=self._reserved.__contains__
        )

    def blob(self, digest: str) -> Path:
        """Where the registry has a blob."""
        digits = hex_digits(digest)
        return self._storage / _BLOBS / digits[:2] / digits / "data"

    # ---- inside ----

    async def _tar(self, layer: Layer, read: Read) -> Path:
        blob = self.blob(layer.digest)
        return await self._unpacked.tar(layer, blob, read=read) if is_compressed(layer) else blob

    def _since(self, digits: str) -> float | None:
        """When what an image was made of was written; None if it is not there. A copy is what its name says."""
        written = self._blob_since(digits)
        return written if written is not None else 0.0 if self._unpacked.has(digits) else None

    def _blob_since(self, digits: str) -> float | None:
        try:
            return self.blob(digits).stat().st_mtime
        except OSError:
            return None
