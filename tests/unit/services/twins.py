"""Fakes of everything outside, as one cluster: an engine, a registry and a bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from events.bus import BusError, BusUnreachable, Record
from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import Message
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.adapters.openers import Adapters
from services.ingest.announcer import Announcer

STREAMS = Streams("test")


class BusOnOff(MemoryBus):
    """A bus that can be away, now or after so many calls that went well, and can lose the replies to publishing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_left: int | None = None
        self.replies_lost = 0

    def _call(self) -> None:
        if self.calls_left == 0:
            raise BusUnreachable("Redis is unreachable: connection refused")
        if self.calls_left is not None:
            self.calls_left -= 1

    async def load(self, key: str) -> Record | None:
        self._call()
        return await super().load(key)

    async def load_many(self, keys: Sequence[str]) -> list[Record | None]:
        self._call()
        return await super().load_many(keys)

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        self._call()
        await super().publish(stream, *envelopes)
        if self.replies_lost:
            self.replies_lost -= 1
            raise BusError("the reply was lost")


@dataclass(slots=True)
class Cluster:
    """What a role or command stands on."""

    engine: MemoryEngine = field(default_factory=MemoryEngine)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    bus: BusOnOff = field(default_factory=BusOnOff)

    def __post_init__(self) -> None:
        self.engine.registries = {self.registry.address: self.registry}

    @property
    def adapters(self) -> Adapters:
        """What opens these, whatever the settings say."""
        return Adapters(
            bus=lambda _: nullcontext(self.bus),
            engine=lambda _, __: nullcontext(self.engine),
            registry=lambda _: nullcontext(self.registry),
        )

    def announcer(self) -> Announcer:
        return Announcer(engine=self.engine, bus=self.bus, streams=STREAMS, source="test@here", pause_seconds=0.001)

    async def said(self, stream: str = STREAMS.images) -> list[Message]:
        """Everything on a stream so far."""
        entries = self.bus.tail((stream,), after="0", follow=False)
        return [entry.envelope.message async for entry in entries if entry.envelope]


async def chunks(*contents: bytes) -> AsyncIterator[bytes]:
    """A stream of these pieces."""
    for content in contents:
        yield content
