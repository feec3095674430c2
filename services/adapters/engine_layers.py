"""Layer placer of a range's engine (the `LayerPlacer` port), chosen by the engine's store once the engine answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from events.messages import Layer
from services.adapters.classic_layers import ClassicLayers
from services.adapters.containerd_layers import ContainerdLayers
from services.adapters.engine_restart import EngineRestart
from services.core.images.image import EngineInfo
from services.errors import CyroidError, LayersNotMounted
from services.ports import Engine, LayerPlacer


class EngineLayers:
    """`shown` is what the host shows this range, as the engine and this process see it; `restart` has it restarted."""

    def __init__(self, engine: Engine, *, shown: Path, containerd_socket: Path, restart: EngineRestart) -> None:
        self._engine = engine
        self._shown = shown
        self._restart = restart
        self._socket = containerd_socket
        self._chosen: LayerPlacer | None = None
        self._kind: tuple[object, ...] | None = None

    def using(self) -> AbstractAsyncContextManager[None]:
        return self._restart.using()

    async def available(self) -> bool:
        with suppress(LayersNotMounted):
            await self._look()  # it may be another engine by now
        return self._chosen is not None and await self._chosen.available()

    async def accept(self, transfer_id: str, layers: Sequence[Layer]) -> None:
        await (await self._placer()).accept(transfer_id, layers)

    async def place(self, transfer_id: str, layers: Sequence[Layer], source: str) -> None:
        await (await self._placer()).place(transfer_id, layers, source)

    async def settle(self, transfer_id: str) -> None:
        if self._chosen is not None:
            await self._chosen.settle(transfer_id)

    async def unused(self) -> dict[str, str]:
        return await self._chosen.unused() if self._chosen is not None else {}

    async def forget(self, grants: Mapping[str, str]) -> None:
        if self._chosen is not None:
            await self._chosen.forget(grants)

    async def unreadable(self) -> tuple[str, ...]:
        return await self._chosen.unreadable() if self._chosen is not None else ()

    async def _placer(self) -> LayerPlacer:
        return self._chosen or await self._look()

    async def _look(self) -> LayerPlacer:
        """The placer for this engine's store, the same as before if it has not changed: transfers may be under way.

        Raises LayersNotMounted if the engine is unavailable, or its store takes no mounted layers.
        """
        try:
            info = await self._engine.info()
        except CyroidError as problem:
            raise LayersNotMounted(f"the engine does not say what store it has: {problem}") from problem
        kind = (info.store, info.driver, info.root, info.live_restore)
        if self._chosen is None or kind != self._kind:
            self._chosen = None
            self._chosen, self._kind = self._choose(info), kind
        return self._chosen

    def _choose(self, info: EngineInfo) -> LayerPlacer:
        root = Path(info.root)
        if info.store == "containerd" and info.driver == "overlayfs":
            return ContainerdLayers(socket=self._socket, root=root, shown=self._shown)
        if info.store == "classic" and info.driver == "overlay2":
            if not info.live_restore:
                raise LayersNotMounted("a restart of the engine would stop its containers: it has no live-restore")
            return ClassicLayers(root=root, shown=self._shown, restart=self._restart)
        raise LayersNotMounted(f"an engine on {info.driver} takes no mounted layers")
