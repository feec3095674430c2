"""Views of layers: which folders a range is shown for a record, and how one appears and disappears at its place."""

from __future__ import annotations

import stat
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from events.messages import Layer
from services.adapters.kernel_mounts import BIND, NO_DEVICES, MountTable, Place, mount
from services.core.images.image import Store
from services.core.mounts.layer_mounts import blob_name, hex_digits
from services.core.mounts.problems import MountProblem
from services.core.mounts.records import ShownLayers

Kind = Literal["layers", "blobs", "splits", "seeds"]
#: Kinds of views → the ending of the image that is mounted for one.
KINDS: dict[Kind, str] = {"layers": ".erofs", "blobs": ".blob", "splits": ".split", "seeds": ".seed"}

#: The folder of ranges' views, below the layer-mounter's.
RANGES = "ranges"
_MEMORY = "cyroid-layers"


class View(NamedTuple):
    """One folder that a range sees: a layer's files, its blob as one file, its tar-split; or the range's seed."""

    kind: Kind
    name: str


def kind_of(store: Store) -> Kind:
    """What a store needs beside a layer's files: a classic one makes the tar anew with the tar-split, the other keeps
    the blob."""
    return "splits" if store == "classic" else "blobs"


def views_of(shown: ShownLayers) -> dict[View, Layer | None]:
    """Every folder that a record stands for, and the layer in it (None: the seed)."""
    views: dict[View, Layer | None] = {View("layers", name): one.layer for name, one in shown.layers.items()}
    for one in shown.layers.values():
        kind = kind_of(one.store)
        views[View(kind, blob_name(one.layer) if kind == "blobs" else hex_digits(one.layer.diff_id))] = one.layer
    if shown.seed and shown.layers:
        views[View("seeds", shown.seed)] = None
    return views


def index_of(view: View, layer: Layer | None) -> str:
    """The name of the image that is mounted for a view: that of a blob is the blob's, others are the layer's."""
    if layer is None:
        return f"{view.name}{KINDS[view.kind]}"
    return f"{hex_digits(layer.digest if view.kind == 'blobs' else layer.diff_id)}{KINDS[view.kind]}"


def bind(source: Path, place: Place, name: str) -> None:
    """A view of `source` at `name`, whatever is there: left if it is that, replaced if it is not."""
    wanted, found = source.stat(), place.stat(name)
    if found is not None and (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
        return
    unbind(place, name)
    with place.point(name) as target:
        try:
            mount(source, target, flags=BIND)
        except OSError:
            place.remove(name)
            raise


def unbind(place: Place, name: str) -> None:
    """Nothing is mounted at `name` any more, and there is no such name."""
    while place.stat(name) is not None:
        try:
            place.unmount(name)
        except OSError:
            break
    with suppress(OSError):  # a folder with something in it is no mount point of ours
        place.remove(name)


def mount_points(folder: Path, range_id: str, kind: Kind, table: MountTable) -> None:
    """Room for a range's mount points, in memory. It is small: a range may write to it."""
    path = folder / RANGES / range_id / kind
    if any(point.source == _MEMORY for point in table.at(path)):
        return
    with Place.open(folder, RANGES, range_id) as place:
        found = place.stat(kind)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            place.remove(kind)  # the range put it there
        with place.point(kind) as target:
            mount(Path(_MEMORY), target, "tmpfs", NO_DEVICES, "size=1m,nr_inodes=16k,mode=755")
    table.mounted(path, "tmpfs", _MEMORY)


def unbind_views(folder: Path, range_id: str, views: Set[View], *, all_of_them: bool) -> None:
    """Hide folders of a range, below the layer-mounter's `folder`."""
    for view in views:  # where a range put something else in the way, nothing is seen
        with suppress(OSError), Place.open(folder, RANGES, range_id, view.kind) as place:
            unbind(place, view.name)
    if all_of_them:
        with Place.open(folder, RANGES, range_id) as place:
            for kind in KINDS:
                unbind(place, kind)


def problem_of(shown: ShownLayers, layer: Layer | None, why: str) -> MountProblem:
    """A problem of what a range is shown; without a layer it is the range's seed."""
    return MountProblem(range_id=shown.range_id, diff_id=layer.diff_id if layer else "", why=why)
