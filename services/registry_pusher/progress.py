"""Progress counters of a push: chunks are counted as they pass, and taken back when an attempt fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from events.messages import LAYERS_TOLD, LayerPhase, LayerProgress
from services.ports import Chunks, OpenLayer, ThreadChunks


@dataclass(slots=True)
class LayerCounter:
    """Progress of one layer."""

    total_bytes: int = 0
    done_bytes: int = 0
    phase: LayerPhase = "waiting"


@dataclass(slots=True)
class ProgressCounters:
    """Progress of a push in bytes of layers as they are read. `changed` is called after every step.

    `layers` are counted one by one, by diff ID.
    """

    changed: Callable[[ProgressCounters], None] = lambda counters: None
    total_bytes: int = 0
    done_bytes: int = 0
    sent_bytes: int = 0
    reused_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0
    layers: dict[str, LayerCounter] = field(default_factory=dict)

    def expect(self, diff_ids: Iterable[str]) -> None:
        """Set which layers the image has."""
        self.layers = {diff_id: LayerCounter() for diff_id in diff_ids}
        self.layers_total = len(self.layers)

    def placed(self, diff_id: str, size_bytes: int) -> None:
        """Count a layer that the registry has: sent now, or there before."""
        counter = self.layers.setdefault(diff_id, LayerCounter())
        counter.phase = "done" if counter.phase == "running" else "reused"
        counter.done_bytes = counter.total_bytes = counter.total_bytes or size_bytes
        self.layers_done += 1
        self.changed(self)

    def told_layers(self) -> tuple[LayerProgress, ...]:
        """The first layers one by one, as progress messages have them."""
        return tuple(
            LayerProgress(
                digest=diff_id.removeprefix("sha256:")[:12],
                phase=counter.phase,
                done_bytes=max(counter.done_bytes, 0),
                total_bytes=counter.total_bytes,
            )
            for diff_id, counter in list(self.layers.items())[:LAYERS_TOLD]
        )


class Counted:
    """Chunks that are counted as they pass; `take_back` when their attempt failed."""

    def __init__(self, counters: ProgressCounters, layer: OpenLayer) -> None:
        self.read_bytes = 0
        self._counters = counters
        self._layer = layer

    def chunks(self) -> Chunks:
        """The layer's chunks; those that a thread reads can still be handed on by it (`ThreadChunks`)."""
        if isinstance(self._layer.chunks, ThreadChunks):
            return _CountedInThread(self._layer.chunks, self._step)
        return self._counted(self._layer.chunks)

    async def _counted(self, chunks: Chunks) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self._step(len(chunk))
            yield chunk

    def take_back(self) -> None:
        self._step(-self.read_bytes)

    def _step(self, step_bytes: int) -> None:
        self.read_bytes += step_bytes
        counter = self._counters.layers.setdefault(self._layer.diff_id, LayerCounter())
        counter.phase = "running" if step_bytes >= 0 else "waiting"
        counter.total_bytes = self._layer.size_bytes or 0
        counter.done_bytes += step_bytes
        self._counters.done_bytes += step_bytes
        if self._layer.size_bytes is None:
            self._counters.total_bytes += step_bytes
        self._counters.changed(self._counters)


class _CountedInThread:
    """Chunks of a thread, counted on the event loop (`services.ports.ThreadChunks`)."""

    def __init__(self, chunks: ThreadChunks, count: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._count = count
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> _CountedInThread:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self._count(len(chunk))
        return chunk

    async def each(self, step: Callable[[bytes], None]) -> None:
        left = False

        def count(size_bytes: int) -> None:
            if not left:  # the thread may be in a chunk when this is cancelled
                self._count(size_bytes)

        def counted(chunk: bytes) -> None:
            step(chunk)
            self._loop.call_soon_threadsafe(count, len(chunk))

        try:
            await self._chunks.each(counted)
        finally:
            left = True
