"""Fault proxies between a process and everything outside it: any call may fail, or be the last that it makes.

A call is one on the bus, an engine, the registry, a layer source or mounted layers, and each piece of what streams
through one: a chunk of a blob on its way into the registry, a line of an engine's progress. `Faults` says what happens
to it.

    lost call       it never reached the other side
    lost reply      it took effect, and that is not known
    late            it came late; `very late`: so late that a lease is gone by then
    killed before   the process is killed, and started again later; the call was not made
    killed after    the same, and the call took effect
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Literal, Protocol

from bench.simulation.cluster import LEASE_SECONDS, EngineAt
from bench.simulation.processes import Process, Proxy
from events.bus import BusUnavailable
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layer_mounts import MemoryLayerMounts
from services.adapters.memory_layer_placer import MemoryLayerPlacer
from services.adapters.memory_layers import MemoryLayers
from services.adapters.memory_registry import MemoryRegistry
from services.errors import EngineUnavailable, LayersNotMounted, LayerUnreadable, RegistryUnavailable

Kind = Literal["lost call", "lost reply", "late", "very late", "killed before", "killed after"]
KINDS: tuple[Kind, ...] = ("lost call", "lost reply", "late", "very late", "killed before", "killed after")
VERY_LATE_SECONDS = 1.5 * LEASE_SECONDS
#: Calls that give a stream, and where calls take one.
_STREAMING = frozenset({"pull", "push", "load", "save", "open_blob", "layer"})
_TAKING = {"put_blob": 3, "load": 0}
#: Calls on files of the process's own machine, which no connection breaks.
_OF_FILES = frozenset({"placer.available", "placer.settle", "placer.unused", "placer.forget", "mounts.shown"})
#: Those of them that fail only as files do.
_OF_DISK = frozenset({"placer.unused", "placer.forget"})


class Faults(Protocol):
    """What goes wrong."""

    def pick(self, process: Process, call: str) -> Kind | None:
        """What happens to this call of this process; None most of the time."""

    def late_seconds(self) -> float:
        """By how much a call is late."""

    def kill(self, process: Process) -> None:
        """End a process now, start it again after a while."""


def faulty(faults: Faults) -> Proxy:
    """Makes a proxy for each thing that a process uses; a process that was killed gets no call through its old ones."""
    return lambda thing, process: _FaultProxy(thing, process, faults)


class _FaultProxy:
    def __init__(self, thing: Any, process: Process, faults: Faults) -> None:
        self._thing = thing
        self._process = process
        self._life = process.lives
        self._faults = faults
        self._is, self._away = _kind_of(thing)

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._thing, name)
        call = f"{self._is}.{name}"
        if inspect.iscoroutinefunction(member):

            async def passed(*arguments: Any, **options: Any) -> Any:
                return await self._pass(call, lambda: member(*self._taken(name, arguments), **options))

            return passed
        if name in _STREAMING:
            return lambda *arguments, **options: self._streamed(
                call, lambda: member(*self._taken(name, arguments), **options)
            )
        return member

    async def _pass(self, call: str, make: Callable[[], Awaitable[Any]]) -> Any:
        kind = await self._before(call)
        answer = await make()
        await self._after(kind)
        return answer

    @asynccontextmanager
    async def _streamed(
        self, call: str, make: Callable[[], AbstractAsyncContextManager[AsyncIterator[Any]]]
    ) -> AsyncIterator[AsyncIterator[Any]]:
        kind = await self._before(call)
        async with make() as stream, aclosing(self._pieces(call, stream)) as pieces:
            await self._after(kind)
            yield pieces

    def _taken(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, a stream among them with faults between its pieces."""
        place = _TAKING.get(name)
        if place is None or len(arguments) <= place or not hasattr(arguments[place], "__aiter__"):
            return arguments
        given = self._pieces(f"{self._is}.{name}", arguments[place])
        return (*arguments[:place], given, *arguments[place + 1 :])

    async def _pieces(self, call: str, stream: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        async for piece in stream:
            kind = await self._before(f"{call} piece")
            yield piece
            await self._after(kind)

    async def _before(self, call: str) -> Kind | None:
        self._living(call)
        kind = self._faults.pick(self._process, call)
        if kind in ("lost call", "lost reply") and call in _OF_FILES:
            return None
        if kind == "lost call":
            raise self._away("the connection broke before the call")
        if kind == "killed before":
            await self._die()
        if kind in ("late", "very late"):
            await asyncio.sleep(VERY_LATE_SECONDS if kind == "very late" else self._faults.late_seconds())
            self._living(call)
        return kind

    async def _after(self, kind: Kind | None) -> None:
        if kind == "lost reply":
            raise self._away("the connection broke after the call")
        if kind == "killed after":
            await self._die()

    async def _die(self) -> None:
        self._faults.kill(self._process)
        await asyncio.Event().wait()

    def _living(self, call: str) -> None:
        if not self._process.alive or self._process.lives != self._life:
            raise (OSError if call in _OF_DISK else self._away)("this process was killed")


def _kind_of(thing: Any) -> tuple[str, Callable[[str], Exception]]:
    if isinstance(thing, MemoryEngine | EngineAt):
        return ("host" if thing.engine_id == "host" else "engine"), EngineUnavailable
    if isinstance(thing, MemoryRegistry):
        return "registry", RegistryUnavailable
    if isinstance(thing, MemoryLayers):
        return "layers", LayerUnreadable
    if isinstance(thing, MemoryLayerMounts | MemoryLayerPlacer):
        return ("mounts" if isinstance(thing, MemoryLayerMounts) else "placer"), LayersNotMounted
    return "bus", BusUnavailable
