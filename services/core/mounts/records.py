"""Record of the layers that a range is shown, and for which transfers: one per range, kept on the host's disk.

A layer is shown for a *grant*, the id of the transfer that asked for it last. A range gives a layer back by naming the
grant it knows: word about an older grant than the current one changes nothing, so a release that comes late never takes
away what was asked for again meanwhile. All that was granted to an engine that is no more is let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from events.messages import Layer, PresentImage
from services.core.images.image import Store
from services.core.mounts.layer_mounts import LayerMount
from services.core.ranges.ranges import DesiredImage


class ShownLayer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One folder that a range is shown. `grant` is the transfer that asked for it last; `store` is its engine's."""

    layer: Layer
    occurrence: int
    grant: str
    store: Store = "containerd"


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
        """A copy with these folders too; those that are shown already belong to this grant from now on."""
        kept = self.of_engine(engine_id).layers
        added = {
            mount.name: ShownLayer(layer=mount.layer, occurrence=mount.occurrence, grant=grant, store=store)
            for mount in mounts
        }
        return msgspec.structs.replace(self, engine_id=engine_id or self.engine_id, layers={**kept, **added})

    def released(self, grants: Mapping[str, str]) -> ShownLayers:
        """A copy without the folders whose current grant is the one named for them."""
        kept = {name: shown for name, shown in self.layers.items() if grants.get(name) != shown.grant}
        return self._with(kept)

    def of_engine(self, engine_id: str | None, images: Iterable[PresentImage] = ()) -> ShownLayers:
        """A copy without what another engine was granted; with all if either engine is not known.

        `images` are those of the engine: the layers of what it started with stay.
        """
        if engine_id is None or self.engine_id is None or engine_id == self.engine_id:
            return self
        present = tuple(images)
        used = {name for one in self.seeded if one.image.is_in(present) for name in one.layers}
        kept = {name: shown for name, shown in self.layers.items() if name in used}
        return msgspec.structs.replace(self._with(kept), engine_id=engine_id)

    def _with(self, layers: dict[str, ShownLayer]) -> ShownLayers:
        """A copy with these layers alone. A seed without any has nothing to give."""
        kept = msgspec.structs.replace(self, layers=layers)
        return kept if layers else msgspec.structs.replace(kept, seed="", seeded=())

    @property
    def digests(self) -> frozenset[str]:
        """The blobs that stand behind what is shown."""
        return frozenset(shown.layer.digest for shown in self.layers.values())
