"""Mounts of the registry's layers as folders for ranges: the `LayerMounts` port on this host's kernel.

    FOLDER/index/<hex>.erofs, .blob, .split    images of a layer: its files, its tar as one file, its tar-split
    FOLDER/index/<hex>.seed                    image of what a range's next engine starts with
    FOLDER/records/<range>.json                what each range is shown, and on whose word
    FOLDER/layers/, blobs/, splits/, seeds/    one file system for each, of which ranges see views: one page cache
    FOLDER/ranges/<range>/layers/<name>/       a range's view of a layer
    FOLDER/ranges/<range>/blobs/<hex>/data     a range's view of the layer's tar, for an engine on containerd's store
    FOLDER/ranges/<range>/splits/<hex>/        a range's view of the layer's tar-split, for one on the classic store
    FOLDER/ranges/<range>/seeds/<hex>/         a range's view of what its next engine starts with

A range's container has FOLDER/ranges/<range> bound with `rslave`, so that views appear while it runs. All are EROFS: a
view of the registry's own file system could be made writable by a range that may mount. The record is written before
anything is mounted and after everything is unmounted, so `restore` makes good whatever a crash, a reboot or somebody
else did. A mount point exists only while something is mounted on it: an empty one would start containers without files.
So the mount points of views lie in a file system in memory, one per range and kind, that is gone after a reboot.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path

import msgspec

from events.messages import Layer, PresentImage
from services.adapters.erofs_index import IndexMaker
from services.adapters.erofs_mounts import ErofsMounts
from services.adapters.kernel_mounts import BIND, FILE_SYSTEM, NO_DEVICES, SHARED, MountTable, Place, mount
from services.adapters.layer_seeds import SeedFiles
from services.adapters.layer_views import KINDS, Kind, View, bind, blob_problems, kind_of, problem_of, unbind, views_of
from services.adapters.shown_layers_files import ShownLayersFiles
from services.core.images.image import Store
from services.core.mounts.layer_mounts import hex_digits, layer_mounts
from services.core.mounts.problems import MountProblem
from services.core.mounts.records import ShownLayers
from services.core.ranges.ranges import DesiredImage
from services.errors import LayersNotMounted

_BLOBS = "docker/registry/v2/blobs/sha256"
_MEMORY = "cyroid-layers"
_RANGES, _INDEX, _RECORDS = "ranges", "index", "records"


class LayerFolder:
    """`storage` is the registry's storage folder, for reading. One process at a time has a folder."""

    def __init__(self, folder: Path, *, storage: Path, indexes: IndexMaker, systems: ErofsMounts | None = None) -> None:
        self._folder = folder
        self._storage = storage
        self._indexes = indexes
        self._systems = systems or ErofsMounts()
        self._records = ShownLayersFiles(folder / _RECORDS)
        self._seeds = SeedFiles(folder / _INDEX, blob=self._blob)
        self._changes = asyncio.Lock()
        self._ready = False

    # ---- the port ----

    async def show(
        self, range_id: str, layers: Sequence[Layer], *, grant: str, engine_id: str | None, store: Store = "containerd"
    ) -> None:
        """Make these layers visible in the range's folder. Raises LayersNotMounted, and then adds none of them."""
        if not self._ready:
            await self.restore()
        with self._indexes.reserved({hex_digits(layer.diff_id) for layer in layers}):
            await self._index_all(layers, store)
            await self._show(range_id, layers, grant, engine_id, store)

    async def _show(
        self, range_id: str, layers: Sequence[Layer], grant: str, engine_id: str | None, store: Store
    ) -> None:
        async with self._changes:
            await self._index_all(layers, store)  # `restore` may have removed one just before it was reserved
            before = self._records.read(range_id)
            after = before.granted(layer_mounts(layers), grant, engine_id, store)
            try:
                await asyncio.to_thread(self._change, before, after)
            except OSError as problem:
                with suppress(OSError):
                    await asyncio.to_thread(self._change, after, before)
                raise LayersNotMounted(f"layers cannot be mounted for range {range_id}: {problem}") from problem

    async def prepare(self, layer: Layer) -> None:
        """Make the images that views of this layer need, on either store. Raises LayersNotMounted."""
        if not self._ready:
            await self.restore()
        digits = hex_digits(layer.diff_id)
        with self._indexes.reserved({digits}):
            await self._indexes.prepare(digits, self._blob(layer.digest))

    async def release(self, range_id: str, grants: Mapping[str, str]) -> None:
        """Hide the folders that are still shown for these grants, by name. Raises LayersNotMounted."""
        await self._become(range_id, lambda before: before.released(grants))

    async def engine_is(self, range_id: str, engine_id: str, images: Sequence[PresentImage] = ()) -> None:
        """Hide what another engine of this range was granted, but for the seeded ones among its `images`. Raises
        LayersNotMounted.
        """
        await self._become(range_id, lambda before: before.of_engine(engine_id, images))

    async def seed(self, range_id: str, wanted: Sequence[DesiredImage]) -> None:
        """Show the range what its next engine starts with. Raises LayersNotMounted."""
        await self._become(range_id, lambda before: self._seeds.seeded(before, wanted))

    async def forget(self, range_id: str) -> None:
        """Hide everything from a range that no longer exists. Raises LayersNotMounted."""
        await self._become(range_id, lambda before: ShownLayers(range_id=before.range_id))

    async def shown(self) -> dict[str, ShownLayers]:
        """What each range is shown."""
        return await asyncio.to_thread(self._records.read_all)

    async def restore(self) -> list[MountProblem]:
        """Repair the differences between mounts and records; what could not be repaired, and blobs that are not right.

        Raises LayersNotMounted.
        """
        await self._indexes.check()
        if not (self._storage.is_absolute() and self._storage.is_dir()):
            raise LayersNotMounted(
                f"the registry's storage {str(self._storage)!r} is not here: see CYROID_REGISTRY_STORAGE"
            )
        async with self._changes:
            try:
                await asyncio.to_thread(self._begin)
                records = await asyncio.to_thread(self._read_all)
                for view, layer in {pair for shown in records.values() for pair in views_of(shown).items()}:
                    if layer is not None:
                        with suppress(LayersNotMounted):  # said below, as a view that cannot be made
                            await self._index(layer, view.kind)
                problems = await asyncio.to_thread(self._mount_all, records.values())
                await asyncio.to_thread(self._tidy, records)
            except OSError as problem:
                raise LayersNotMounted(f"nothing can be mounted below {self._folder}: {problem}") from problem
        self._ready = True
        return problems

    # ---- inside ----

    async def _become(self, range_id: str, change: Callable[[ShownLayers], ShownLayers]) -> None:
        async with self._changes:
            before = self._records.read(range_id)
            try:
                after = await asyncio.to_thread(change, before)
                await asyncio.to_thread(self._change, before, after)
            except OSError as problem:
                raise LayersNotMounted(f"what range {range_id} is shown cannot be changed: {problem}") from problem

    # ---- mounts (blocking) ----

    def _read_all(self) -> dict[str, ShownLayers]:
        """All records; a seed whose image file has gone is made again by whoever says what is wanted."""
        records = self._records.read_all()
        for range_id, shown in records.items():
            if not self._seeds.is_there(shown):
                records[range_id] = msgspec.structs.replace(shown, seed="", seeded=())
                self._records.write(records[range_id])
        return records

    async def _index_all(self, layers: Sequence[Layer], store: Store) -> None:
        """Images of all these layers, some at a time. Raises LayersNotMounted, when all have ended."""
        made = [self._index(layer, "layers", kind_of(store)) for layer in dict.fromkeys(layers)]
        for problem in await asyncio.gather(*made, return_exceptions=True):
            if problem is not None:
                raise problem

    async def _index(self, layer: Layer, *kinds: Kind) -> None:
        """The images that are mounted for views of these kinds. Raises LayersNotMounted."""
        make = {"layers": self._indexes.files, "blobs": self._indexes.blob, "splits": self._indexes.split}
        for kind in kinds:
            await make[kind](hex_digits(layer.diff_id), self._blob(layer.digest))

    def _begin(self) -> None:
        """Make the folder a mount of its own with shared propagation: what is mounted below it appears in the
        ranges' views.
        """
        for name in (_INDEX, _RECORDS, _RANGES, *KINDS):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        if not MountTable(self._folder).at(self._folder):
            mount(self._folder, self._folder, flags=BIND)
        mount(None, self._folder, flags=SHARED)

    def _change(self, before: ShownLayers, after: ShownLayers) -> None:
        """Move from one record to the next: additions are recorded before they are mounted, removals after they
        are unmounted.
        """
        if before == after:
            return
        old, new = views_of(before), views_of(after)
        self._records.write(msgspec.structs.replace(after, layers={**before.layers, **after.layers}))
        table = MountTable(self._folder)
        for view, layer in new.items():
            self._mount(after.range_id, view, layer, table)
        gone = old.keys() - new.keys()
        self._unbind_views(before.range_id, gone, all_of_them=not new)
        self._records.write(after)
        used = {view for shown in self._records.read_all().values() for view in views_of(shown)} if gone else set()
        for view in gone - used:
            with Place.open(self._folder, view.kind) as place:
                unbind(place, view.name)

    def _mount_all(self, records: Iterable[ShownLayers]) -> list[MountProblem]:
        problems, table = list[MountProblem](), MountTable(self._folder)
        for shown in records:
            for view, layer in views_of(shown).items():
                try:
                    self._mount(shown.range_id, view, layer, table)
                except OSError as problem:
                    self._unbind_views(shown.range_id, {view}, all_of_them=False)
                    why = f"{view.kind}/{view.name} cannot be mounted: {problem}"
                    problems.append(problem_of(shown, layer, why))
            told = {one.diff_id for one in problems if one.range_id == shown.range_id}
            problems += blob_problems(shown, self._blob, told)
        return problems

    def _mount(self, range_id: str, view: View, layer: Layer | None, table: MountTable) -> None:
        """Mount a file system and the range's view of it, unless they are mounted already."""
        digits = hex_digits(layer.diff_id) if layer is not None else view.name
        index = self._folder / _INDEX / f"{digits}{KINDS[view.kind]}"
        blob = self._blob(layer.digest) if layer is not None and view.kind != "splits" else None
        self._mount_system(self._folder / view.kind / view.name, index, blob, table)
        self._mount_points(range_id, view.kind, table)
        with Place.open(self._folder, _RANGES, range_id, view.kind) as place:
            bind(self._folder / view.kind / view.name, place, view.name)

    def _mount_points(self, range_id: str, kind: Kind, table: MountTable) -> None:
        """Room for a range's mount points, in memory. It is small: a range may write to it."""
        path = self._folder / _RANGES / range_id / kind
        if any(point.source == _MEMORY for point in table.at(path)):
            return
        with Place.open(self._folder, _RANGES, range_id) as place:
            found = place.stat(kind)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                place.remove(kind)  # the range put it there
            with place.point(kind) as target:
                mount(Path(_MEMORY), target, "tmpfs", NO_DEVICES, "size=1m,nr_inodes=16k,mode=755")
        table.mounted(path, "tmpfs", _MEMORY)

    def _unbind_views(self, range_id: str, views: Set[View], *, all_of_them: bool) -> None:
        """Hide folders of a range."""
        for view in views:  # where a range put something else in the way, nothing is seen
            with suppress(OSError), Place.open(self._folder, _RANGES, range_id, view.kind) as place:
                unbind(place, view.name)
        if all_of_them:
            with Place.open(self._folder, _RANGES, range_id) as place:
                for kind in KINDS:
                    unbind(place, kind)

    def _mount_system(self, system: Path, index: Path, blob: Path | None, table: MountTable) -> None:
        mounted = table.at(system)
        if mounted and self._systems.is_mounted(mounted[-1], index):
            return
        with Place.open(self._folder, system.parent.name) as place:
            for _ in mounted:  # somebody else's
                place.unmount(system.name)
            with place.point(system.name) as target:
                try:
                    self._systems.mount(index, blob, target)
                except OSError:
                    place.remove(system.name)
                    raise
        table.mounted(system, FILE_SYSTEM, str(index))

    def _tidy(self, records: dict[str, ShownLayers]) -> None:
        """Remove what no record names: views, file systems, mount points and indexes."""
        views = {range_id: views_of(shown).keys() for range_id, shown in records.items()}
        for range_id in sorted(path.name for path in (self._folder / _RANGES).iterdir() if path.is_dir()):
            if range_id not in views:
                self._unbind_views(range_id, frozenset(), all_of_them=True)
                continue
            for kind in KINDS:
                with suppress(NotADirectoryError), Place.open(self._folder, _RANGES, range_id, kind) as place:
                    for name in place.names():
                        if View(kind, name) not in views[range_id]:
                            unbind(place, name)
        used = {view for shown in views.values() for view in shown}
        for kind in KINDS:
            with Place.open(self._folder, kind) as place:
                for name in place.names():
                    if View(kind, name) not in used:
                        unbind(place, name)
        needed = frozenset(f"{view.name.partition('.')[0]}{KINDS[view.kind]}" for view in used)
        self._indexes.clean(needed, since=self._blob_since)

    def _blob_since(self, digits: str) -> float | None:
        """When a blob was written; None if it is not there."""
        try:
            return self._blob(digits).stat().st_mtime
        except OSError:
            return None

    def _blob(self, digest: str) -> Path:
        digits = hex_digits(digest)
        return self._storage / _BLOBS / digits[:2] / digits / "data"
