"""The fake of `LayerPlacer`: layers that the fake host shows a range become layers of its fake engine.

What is placed is kept with the engine's store, so that it goes with the engine and outlives its agent. A layer whose
folder is shown no more stays listed, as in an engine; `missing` names those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from events.messages import Layer
from services.adapters.memory_archives import plain_layer
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layer_mounts import MemoryLayerMounts
from services.adapters.placed_layers import PlacedLayers
from services.core.mounts.layer_mounts import diff_ids_of, is_compressed, layer_mounts
from services.errors import LayersNotMounted


class MemoryLayerPlacer:
    """`engine` is the one that the range has at the moment; `content` gives a blob of the registry by its digest."""

    def __init__(
        self,
        *,
        range_id: str,
        engine: Callable[[], MemoryEngine],
        mounts: MemoryLayerMounts,
        content: Callable[[str], bytes],
    ) -> None:
        self._range_id = range_id
        self._engine = engine
        self._mounts = mounts
        self._content = content

    def using(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def available(self) -> bool:
        return True

    async def accept(self, transfer_id: str, layers: Sequence[Layer]) -> None:
        names = [mount.name for mount in layer_mounts(layers)]
        self._change(lambda placed: placed.accepted(transfer_id, names))

    async def place(self, transfer_id: str, layers: Sequence[Layer], source: str) -> None:
        shown = (await self._mounts.shown()).get(self._range_id)
        mounts, store = layer_mounts(layers), self._engine().store
        for mount in mounts:
            if shown is None or mount.name not in shown.layers:
                raise LayersNotMounted(f"layers/{mount.name} is not mounted: see the host's layer-mounter")
        for mount in mounts:
            diff_id = mount.layer.diff_id
            if diff_id not in store.layers:
                blob = self._content(mount.layer.digest)
                store.add_layer(plain_layer(blob) if is_compressed(mount.layer) else blob, wanted=diff_id)
                store.mounted[mount.name] = diff_id
            elif diff_id in store.mounted.values():
                store.mounted[mount.name] = diff_id

    async def settle(self, transfer_id: str) -> None:
        self._change(lambda placed: placed.settled(transfer_id))
        store = self._engine().store
        kept = {name for names in store.placed.open.values() for name in names}
        store.drop_unused(diff_id for name, diff_id in store.mounted.items() if name not in kept)

    async def unused(self) -> dict[str, str]:
        store = self._engine().store
        return store.placed.unused(store.mounted)

    async def forget(self, grants: Mapping[str, str]) -> None:
        self._change(lambda placed: placed.without(grants))

    async def unreadable(self) -> tuple[str, ...]:
        gone = await missing(self._engine(), self._range_id, self._mounts)
        return diff_ids_of(gone)

    def _change(self, change: Callable[[PlacedLayers], PlacedLayers]) -> None:
        store = self._engine().store
        store.placed = change(store.placed)


async def missing(engine: MemoryEngine, range_id: str, mounts: MemoryLayerMounts) -> set[str]:
    """Names of folders that the engine's layers stand on and that the range is not shown."""
    shown = (await mounts.shown()).get(range_id)
    return set(engine.store.mounted) - set(shown.layers if shown is not None else ())
