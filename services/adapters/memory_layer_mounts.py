"""The fake of `LayerMounts`: remembers what each range is shown, and mounts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set

import msgspec

from events.messages import Layer, PresentImage
from services.core.images.image import Store
from services.core.images.manifests import sha256
from services.core.mounts.layer_mounts import is_compressed, layer_mounts
from services.core.mounts.problems import MountProblem, blob_problem
from services.core.mounts.records import SeededImage, ShownLayers
from services.core.ranges.ranges import DesiredImage
from services.errors import LayersNotMounted


class MemoryLayerMounts:
    """Shows layers whose digests are among `blobs`; refuses others as a registry does that does not have them.

    `unpacks_seconds`: how long it takes to unpack a compressed one.
    """

    def __init__(self, blobs: Set[str] = frozenset()) -> None:
        self.blobs = blobs
        self.prepared: list[str] = []
        self.unpacks_seconds = 0.0
        self._records: dict[str, ShownLayers] = {}

    async def show(
        self,
        range_id: str,
        layers: Sequence[Layer],
        *,
        grant: str,
        engine_id: str | None,
        store: Store = "containerd",
        read: Callable[[str, int], None] = lambda digest, read_bytes: None,
    ) -> None:
        missing = [layer.digest for layer in layers if layer.digest not in self.blobs]
        if missing:
            raise LayersNotMounted(f"the registry's storage has no {missing[0]}")
        for layer in layers:
            if is_compressed(layer):
                read(layer.digest, layer.size_bytes)
                await asyncio.sleep(self.unpacks_seconds)
        self._keep(self._record(range_id).granted(layer_mounts(layers), grant, engine_id, store))

    async def prepare(self, layer: Layer) -> None:
        if layer.digest not in self.blobs:
            raise LayersNotMounted(f"the registry's storage has no {layer.digest}")
        self.prepared.append(layer.digest)

    async def release(self, range_id: str, grants: Mapping[str, str]) -> None:
        self._keep(self._record(range_id).released(grants))

    async def engine_is(self, range_id: str, engine_id: str, images: Sequence[PresentImage] = ()) -> None:
        self._keep(self._record(range_id).of_engine(engine_id, images))

    async def seed(self, range_id: str, wanted: Sequence[DesiredImage]) -> None:
        before, seeded = self._record(range_id), list[SeededImage]()
        for image in sorted(wanted, key=lambda one: one.reference):
            blobs = {one.layer.diff_id: one.layer for one in before.layers.values()}
            layers = [blobs[one] for one in image.diff_ids if one in blobs]
            names = tuple(mount.name for mount in layer_mounts(layers))
            is_whole = len(layers) == len(image.diff_ids) and before.layers.keys() >= set(names)
            if image.source is not None and names and is_whole:
                seeded.append(SeededImage(image=image, layers=names))
        seed = sha256(msgspec.json.encode(seeded)).removeprefix("sha256:") if seeded else ""
        self._keep(msgspec.structs.replace(before, seed=seed, seeded=tuple(seeded)))

    async def forget(self, range_id: str) -> None:
        self._records.pop(range_id, None)

    async def shown(self) -> dict[str, ShownLayers]:
        return dict(self._records)

    async def restore(self) -> list[MountProblem]:
        return [
            MountProblem(range_id=record.range_id, diff_id=shown.layer.diff_id, why=why)
            for record in self._records.values()
            for shown in record.layers.values()
            if (why := blob_problem(shown.layer, shown.layer.size_bytes if shown.layer.digest in self.blobs else None))
        ]

    def _record(self, range_id: str) -> ShownLayers:
        return self._records.get(range_id, ShownLayers(range_id=range_id))

    def _keep(self, record: ShownLayers) -> None:
        self._records.pop(record.range_id, None)
        if record.layers:
            self._records[record.range_id] = record
