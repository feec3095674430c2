"""Mounts of the registry's layers as folders for ranges: the `LayerMounts` port on this host's kernel.

    FOLDER/index/<hex>.erofs, .blob, .split    images of a layer: its files, its blob as one file, its tar-split
    FOLDER/index/<hex>.seed                    image of what a range's next engine starts with
    FOLDER/unpacked/<hex>.<hex>.<bytes>        tars of layers that the registry holds compressed
    FOLDER/records/<range>.json                what each range is shown, and on whose word
    FOLDER/layers/, blobs/, splits/, seeds/    one file system for each, of which ranges see views: one page cache
    FOLDER/ranges/<range>/layers/<name>/       a range's view of a layer
    FOLDER/ranges/<range>/blobs/<name>/data    a range's view of the layer's blob, for an engine on containerd's store
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
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from events.messages import Layer, PresentImage
from services.adapters.erofs_index import IndexMaker
from services.adapters.erofs_mounts import ErofsMounts
from services.adapters.kernel_mounts import BIND, FILE_SYSTEM, SHARED, MountTable, Place, mount
from services.adapters.layer_images import LayerImages
from services.adapters.layer_seeds import SeedFiles
from services.adapters.layer_views import (
    KINDS,
    RANGES,
    View,
    bind,
    mount_points,
    problem_of,
    unbind,
    unbind_views,
    views_of,
)
from services.adapters.shown_layers_files import ShownLayersFiles
from services.adapters.unpacked_layers import Read, UnpackedLayers, unheard
from services.core.images.image import Store
from services.core.mounts.layer_mounts import layer_mounts
from services.core.mounts.problems import MountProblem
from services.core.mounts.records import ShownLayers
from services.core.ranges.ranges import DesiredImage
from services.errors import LayersNotMounted

#: The folder of unpacked copies, below the layer-mounter's.
UNPACKED = "unpacked"
_INDEX, _RECORDS = "index", "records"


class LayerFolder:
    """`storage` is the registry's storage folder, for reading. One process at a time has a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        storage: Path,
        indexes: IndexMaker,
        unpacked: UnpackedLayers | None = None,
        systems: ErofsMounts | None = None,
    ) -> None:
        self._folder = folder
        self._images = LayerImages(
            folder / _INDEX,
            storage=storage,
            indexes=indexes,
            unpacked=unpacked or UnpackedLayers(folder / UNPACKED),
        )
        self._systems = systems or ErofsMounts()
        self._records = ShownLayersFiles(folder / _RECORDS)
        self._seeds = SeedFiles(folder / _INDEX, blob=self._images.blob)
        self._changes = asyncio.Lock()
        self._ready = False

    # ---- the port ----

    async def show(
        self,
        range_id: str,
        layers: Sequence[Layer],
        *,
        grant: str,
        engine_id: str | None,
        store: Store = "containerd",
        read: Read = unheard,
    ) -> None:
        """Make these layers visible in the range's folder. Raises LayersNotMounted, and then adds none of them."""
        if not self._ready:
            await self.restore()
        with self._images.reserved(layers):
            await self._images.make_all(layers, store, read)
            await self._show(range_id, layers, grant, engine_id, store)

    async def _show(
        self, range_id: str, layers: Sequence[Layer], grant: str, engine_id: str | None, store: Store
    ) -> None:
        async with self._changes:
            await self._images.make_all(layers, store)  # `restore` may have removed one just before it was reserved
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
        await self._images.prepare(layer)

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
        await self._images.check()
        try:
            async with self._changes:
                await asyncio.to_thread(self._begin)
                await asyncio.to_thread(self._drop_cut)
                records = await asyncio.to_thread(self._records.read_all)
            await self._images.unpack(records.values())  # it may take minutes, and others go on meanwhile
            async with self._changes:
                records = await asyncio.to_thread(self._read_all)
                for view, layer in {pair for shown in records.values() for pair in views_of(shown).items()}:
                    if layer is not None:
                        with suppress(LayersNotMounted):  # said below, as a view that cannot be made
                            await self._images.make(layer, view.kind)
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

    def _drop_cut(self) -> None:
        """Hide layers whose unpacked copies lost a part, and remove these: both are made again."""
        records = self._records.read_all().values()
        for layer, copies in self._images.cut(records).items():
            for shown in records:
                views = {view for view, one in views_of(shown).items() if one == layer and view.kind == "layers"}
                unbind_views(self._folder, shown.range_id, views, all_of_them=False)
                for view in views:
                    with Place.open(self._folder, view.kind) as place:
                        unbind(place, view.name)
            for copy in copies:
                copy.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Make the folder a mount of its own with shared propagation: what is mounted below it appears in the
        ranges' views.
        """
        for name in (_INDEX, _RECORDS, RANGES, *KINDS):
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
        both = msgspec.structs.replace(after, layers={**before.layers, **after.layers})
        self._records.write(both)
        table = MountTable(self._folder)
        for view, layer in new.items():
            self._mount(after.range_id, view, layer, table)
        gone = old.keys() - new.keys()
        unbind_views(self._folder, before.range_id, gone, all_of_them=not new)
        if after != both:
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
                    unbind_views(self._folder, shown.range_id, {view}, all_of_them=False)
                    why = f"{view.kind}/{view.name} cannot be mounted: {problem}"
                    problems.append(problem_of(shown, layer, why))
            told = {one.diff_id for one in problems if one.range_id == shown.range_id}
            problems += self._images.problems(shown, told)
        return problems

    def _mount(self, range_id: str, view: View, layer: Layer | None, table: MountTable) -> None:
        """Mount a file system and the range's view of it, unless they are mounted already."""
        index, data = self._images.mounted_from(view, layer)
        self._mount_system(self._folder / view.kind / view.name, index, data, table)
        mount_points(self._folder, range_id, view.kind, table)
        with Place.open(self._folder, RANGES, range_id, view.kind) as place:
            bind(self._folder / view.kind / view.name, place, view.name)

    def _mount_system(self, system: Path, index: Path, data: Path | None, table: MountTable) -> None:
        mounted = table.at(system)
        if mounted and self._systems.is_mounted(mounted[-1], index):
            return
        if data is not None and not data.exists():
            raise FileNotFoundError(errno.ENOENT, "its content is missing", str(data))
        with Place.open(self._folder, system.parent.name) as place:
            for _ in mounted:  # somebody else's
                place.unmount(system.name)
            with place.point(system.name) as target:
                try:
                    self._systems.mount(index, data, target, cut=system.parent.name == "blobs")
                except OSError:
                    place.remove(system.name)
                    raise
        table.mounted(system, FILE_SYSTEM, str(index))

    def _tidy(self, records: dict[str, ShownLayers]) -> None:
        """Remove what no record names: views, file systems, mount points and indexes."""
        views = {range_id: views_of(shown).keys() for range_id, shown in records.items()}
        for range_id in sorted(path.name for path in (self._folder / RANGES).iterdir() if path.is_dir()):
            if range_id not in views:
                unbind_views(self._folder, range_id, frozenset(), all_of_them=True)
                continue
            for kind in KINDS:
                with suppress(NotADirectoryError), Place.open(self._folder, RANGES, range_id, kind) as place:
                    for name in place.names():
                        if View(kind, name) not in views[range_id]:
                            unbind(place, name)
        used = {pair for shown in records.values() for pair in views_of(shown).items()}
        names = {view for view, _ in used}
        for kind in KINDS:
            with Place.open(self._folder, kind) as place:
                for name in place.names():
                    if View(kind, name) not in names:
                        unbind(place, name)
        self._images.clean(used)
