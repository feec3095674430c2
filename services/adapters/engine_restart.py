"""Restart of a range's engine so that it takes layers, by the init of its container (`dind/init.py`), at a moment when
nobody uses it.

Transfers hold `using` while they work with the engine. Those that want layers placed wait in `place`, and when all
others have ended, one restart serves all that wait. An engine that somebody else uses is waited for, not for long: the
pull is as good as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from events.malformed import MALFORMED
from services.core.mounts.layer_mounts import LayerMount
from services.errors import CyroidError, LayersNotMounted
from services.ports import Engine

RestartMode = Literal["never", "idle", "always"]
#: What is waited for: own transfers and other clients; the init; the engine afterwards.
IDLE_SECONDS, INIT_SECONDS, READY_SECONDS = 10.0, 30.0, 30.0
_ASK_AGAIN_SECONDS, _ASK_READY_SECONDS = 0.2, 0.02
_ANSWER_LIMIT_BYTES = 1 << 16


class PlaceLayer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One layer of a request to the init. `parent` is the chain id of the layer below."""

    name: str
    diff_id: str
    chain_id: str
    parent: str = ""


class PlaceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request: restart when the engine is not in use, as `mode` sees it, with these layers."""

    mode: RestartMode
    layers: tuple[PlaceLayer, ...]


class PlaceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the init did. `busy`: another moment may suit."""

    placed: bool
    busy: bool = False
    why: str = ""


class _Batch:
    """Layers of all transfers that wait for one restart."""

    def __init__(self) -> None:
        self.layers: dict[str, PlaceLayer] = {}
        self.done = asyncio.Event()
        self.problem: LayersNotMounted | None = None


class EngineRestart:
    """`control` is the init's socket; `mode` when it may restart the engine."""

    def __init__(self, engine: Engine, *, control: Path, mode: RestartMode) -> None:
        self._engine = engine
        self._control = control
        self._mode: RestartMode = mode
        self._batch: _Batch | None = None
        self._users = 0
        self._changed = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()

    def available(self) -> bool:
        """Whether there is an init that may restart the engine."""
        return self._mode != "never" and self._control.is_socket()

    @asynccontextmanager
    async def using(self) -> AsyncIterator[None]:
        """The engine is not restarted here meanwhile, but in `place`."""
        await self._open.wait()
        self._users += 1
        try:
            yield
        finally:
            self._leave()

    async def place(self, mounts: Iterable[LayerMount]) -> None:
        """Have the engine restarted with these layers; the caller is in `using`. Raises LayersNotMounted."""
        batch, leads = self._batch or _Batch(), self._batch is None
        self._batch = batch
        batch.layers |= {layer.chain_id: layer for layer in _wanted(mounts)}
        self._leave()
        try:
            if leads:
                await self._restart(batch)
            else:
                await batch.done.wait()
        finally:
            self._users += 1
        if batch.problem is not None:
            raise batch.problem

    def _leave(self) -> None:
        self._users -= 1
        self._changed.set()

    async def _restart(self, batch: _Batch) -> None:
        batch.problem = LayersNotMounted("the restart of the engine was interrupted")
        try:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._alone()
            except TimeoutError:
                batch.problem = LayersNotMounted(
                    f"the engine cannot be restarted: {self._users} other transfers use it"
                )
                return
            self._batch = None  # who comes now waits for the next one
            self._open.clear()
            batch.problem = await self._ask(tuple(batch.layers.values()))
            await self._ready()
        finally:
            if self._batch is batch:
                self._batch = None
            self._open.set()
            batch.done.set()

    async def _alone(self) -> None:
        while self._users:
            self._changed.clear()
            await self._changed.wait()

    async def _ask(self, layers: tuple[PlaceLayer, ...]) -> LayersNotMounted | None:
        """Why the engine does not know the layers now, if it does not."""
        loop = asyncio.get_running_loop()
        until = loop.time() + IDLE_SECONDS
        while True:
            try:
                async with asyncio.timeout(INIT_SECONDS):
                    answer = await self._request(PlaceRequest(mode=self._mode, layers=layers))
            except LayersNotMounted as problem:
                return problem
            except (OSError, TimeoutError) as problem:
                return LayersNotMounted(f"the range's init does not answer at {self._control}: {problem}")
            if answer.placed:
                return None
            if not answer.busy or loop.time() >= until:
                return LayersNotMounted(f"the engine was not restarted: {answer.why}")
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def _request(self, request: PlaceRequest) -> PlaceAnswer:
        reader, writer = await asyncio.open_unix_connection(str(self._control), limit=_ANSWER_LIMIT_BYTES)
        try:
            writer.write(msgspec.json.encode(request) + b"\n")
            await writer.drain()
            return answer_of(await reader.readline())
        finally:
            writer.close()

    async def _ready(self) -> None:
        """Until the engine answers; one that does not is noticed by whoever asks it next."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                while True:
                    if await self._answers():
                        return
                    await asyncio.sleep(_ASK_READY_SECONDS)

    async def _answers(self) -> bool:
        try:
            await self._engine.ping()
        except CyroidError:
            return False
        return True


def answer_of(line: bytes) -> PlaceAnswer:
    """Raises LayersNotMounted for what is no answer of an init."""
    try:
        return msgspec.json.decode(line, type=PlaceAnswer)
    except MALFORMED as problem:
        raise LayersNotMounted(f"the range's init does not answer: {problem}") from problem


def _wanted(mounts: Iterable[LayerMount]) -> Iterable[PlaceLayer]:
    parent = ""
    for mount in mounts:
        yield PlaceLayer(name=mount.name, diff_id=mount.layer.diff_id, chain_id=mount.chain_id, parent=parent)
        parent = mount.chain_id
