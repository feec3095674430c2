"""Views of layers: which folders a range is shown for a record, how one appears and disappears at its place, and which
stand on blobs that are not right any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from events.messages import Layer
from services.adapters.kernel_mounts import BIND, Place, mount
from services.core.images.image import Store
from services.core.mounts.layer_mounts import hex_digits
from services.core.mounts.problems import MountProblem, blob_problem
from services.core.mounts.records import ShownLayers

Kind = Literal["layers", "blobs", "splits", "seeds"]
#: Kinds of views → the ending of the image that is mounted for one.
KINDS: dict[Kind, str] = {"layers": ".erofs", "blobs": ".blob", "splits": ".split", "seeds": ".seed"}


class View(NamedTuple):
    """One folder that a range sees: a layer's files, its tar as one file, its tar-split; or the range's seed."""

    kind: Kind
    name: str


def kind_of(store: Store) -> Kind:
    """What a store needs beside a layer's files: a classic one makes the tar anew with the tar-split, the other keeps
    it."""
    return "splits" if store == "classic" else "blobs"


def views_of(shown: ShownLayers) -> dict[View, Layer | None]:
    """Every folder that a record stands for, and the layer in it (None: the seed)."""
    views: dict[View, Layer | None] = {View("layers", name): one.layer for name, one in shown.layers.items()}
    for one in shown.layers.values():
        views[View(kind_of(one.store), hex_digits(one.layer.diff_id))] = one.layer
    if shown.seed and shown.layers:
        views[View("seeds", shown.seed)] = None
    return views


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


def blob_problems(shown: ShownLayers, blob: Callable[[str], Path], told: Set[str]) -> Iterator[MountProblem]:
    """Blobs behind what a range is shown that are gone or cut off, but for layers that were `told`. Blocking."""
    for layer in dict.fromkeys(one.layer for one in shown.layers.values()):
        try:
            found = blob(layer.digest).stat().st_size
        except OSError:
            found = None
        why = blob_problem(layer, found) if layer.diff_id not in told else None
        if why is not None:
            yield problem_of(shown, layer, why)


def problem_of(shown: ShownLayers, layer: Layer | None, why: str) -> MountProblem:
    """A problem of what a range is shown; without a layer it is the range's seed."""
    return MountProblem(range_id=shown.range_id, diff_id=layer.diff_id if layer else "", why=why)
