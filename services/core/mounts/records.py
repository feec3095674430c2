"""Record of the layers that a range is shown, and for which transfers: one per range, kept on the host's disk.

A layer is shown for *grants*, the ids of the transfers that asked for it. Each is given back by itself, and the layer
is shown until none is left: a release never takes away what another transfer asked for, in whatever order the host and
the range saw the two. All that was granted to an engine that is no more is let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from events.messages import Layer, PresentImage
from services.core.images.image import Store
from services.core.mounts.layer_mounts import LayerMount
from services.core.ranges.ranges import DesiredImage

#: Of one folder. A hostile range gives nothing back, and may be asked to take an image again and again.
GRANTS_LIMIT = 100


class ShownLayer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One folder that a range is shown. `grant` is the transfer that asked for it last, `earlier` are those that did
    before and have not given it back; `store` is its engine's.
    """

    layer: Layer
    occurrence: int
    grant: str
    store: Store = "containerd"
    earlier: tuple[str, ...] = ()

    def granted(self, earlier: ShownLayer | None) -> ShownLayer:
        """A copy with the grants of `earlier` too, the record of the same folder before; with the last of very many."""
        if earlier is None:
            return self
        grants = tuple(one for one in (*earlier.earlier, earlier.grant) if one != self.grant)
        return msgspec.structs.replace(self, earlier=grants[1 - GRANTS_LIMIT :])

    def released(self, grant: str | None) -> ShownLayer | None:
        """A copy without this grant; None where it was the last one."""
        grants = [one for one in (*self.earlier, self.grant) if one != grant]
        return msgspec.structs.replace(self, earlier=tuple(grants[:-1]), grant=grants[-1]) if grants else None


class SeededImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image that the range's next engine starts with, and the names of its folders."""

    image: DesiredImage
    layers: tuple[str, ...]


class ShownLayers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that one range is shown, by the folder's name, for the engine `engine_id` (None: it was not known).

    `seed` names the file system with what its next engine starts with (`services.core.mounts.seeds`), empty where there
    is none; `seeded` is what that has.
    """

    range_id: str
    engine_id: str | None = None
    layers: dict[str, ShownLayer] = {}
    seed: str = ""
    seeded: tuple[SeededImage, ...] = ()

    def granted(
        self, mounts: Iterable[LayerMount], grant: str, engine_id: str | None, store: Store = "containerd"
    ) -> ShownLayers:
        """A copy with these folders too, and with this grant for those that are shown already."""
        kept = self.of_engine(engine_id).layers
        added = {
            mount.name: ShownLayer(layer=mount.layer, occurrence=mount.occurrence, grant=grant, store=store).granted(
                kept.get(mount.name)
            )
            for mount in mounts
        }
        return msgspec.structs.replace(self, engine_id=engine_id or self.engine_id, layers={**kept, **added})

    def released(self, grants: Mapping[str, str]) -> ShownLayers:
        """A copy without these grants, by folder, and without the folders that have none left."""
        left = {name: shown.released(grants.get(name)) for name, shown in self.layers.items()}
        return self._with({name: shown for name, shown in left.items() if shown is not None})

    def of_engine(self, engine_id: str | None, images: Iterable[PresentImage] = ()) -> ShownLayers:
        """A copy without what another engine was granted; with all if either engine is not known.

        `images` are those of the engine: the layers of what it started with stay, for the grant that its seed names.
        """
        if engine_id is None or self.engine_id is None or engine_id == self.engine_id:
            return self
        present = tuple(images)
        used = {name for one in self.seeded if one.image.is_in(present) for name in one.layers}
        kept = {name: msgspec.structs.replace(shown, earlier=()) for name, shown in self.layers.items() if name in used}
        return msgspec.structs.replace(self._with(kept), engine_id=engine_id)

    def _with(self, layers: dict[str, ShownLayer]) -> ShownLayers:
        """A copy with these layers alone. A seed without any has nothing to give."""
        kept = msgspec.structs.replace(self, layers=layers)
        return kept if layers else msgspec.structs.replace(kept, seed="", seeded=())

    @property
    def digests(self) -> frozenset[str]:
        """The blobs that stand behind what is shown."""
        return frozenset(shown.layer.digest for shown in self.layers.values())
