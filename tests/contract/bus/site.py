"""The bus under test, and what its conformance suite uses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from events.envelope import Envelope
from events.lease import Bus, DeadLetterReason, Holder, Lease
from events.messages import PushRequested
from events.streams import Streams

LEASE_SECONDS = 0.3


@dataclass(frozen=True)
class Case:
    """A bus, and the names that one test uses on it."""

    bus: Bus
    streams: Streams

    @property
    def images(self) -> str:
        return self.streams.images

    @property
    def effects(self) -> str:
        """No stream of ours, so anything may be published there."""
        return f"{self.streams.prefix}:effects"

    async def say(self, subject: str = "nginx", stream: str | None = None) -> Envelope:
        envelope = Envelope(message=PushRequested(reference=subject), source="test", subject=subject)
        await self.bus.publish(stream or self.images, envelope)
        return envelope

    async def take(self, owner: str, count: int = 10, group: str = "pusher") -> list[Lease]:
        return list((await self.bus.take(holder(owner, group), [self.images], count)).leases)

    async def take_one(self, owner: str, group: str = "pusher") -> Lease:
        (lease,) = await self.take(owner, 1, group)
        return lease

    async def recover(self, owner: str, *held: Lease, count: int = 10) -> list[Lease]:
        found = await self.bus.recover(holder(owner), [self.images], count, [lease.place for lease in held])
        return list(found.leases)

    async def entries(self, stream: str) -> list[str]:
        found = self.bus.tail([stream], after="0", follow=False)
        return [entry.envelope.subject if entry.envelope else "?" async for entry in found]

    def letter(self, code: str = "permanent") -> DeadLetterReason:
        return DeadLetterReason(self.streams.dead, code, "because", "2026-01-01T00:00:00.000000Z")


def holder(owner: str, group: str = "pusher") -> Holder:
    return Holder(group, owner, LEASE_SECONDS)


def say(subject: str) -> Envelope:
    return Envelope(message=PushRequested(reference=subject), source="test", subject=subject)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so, for at most ten seconds."""
    async with asyncio.timeout(10):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


async def until(found: Callable[[], Awaitable[list[Lease]]]) -> list[Lease]:
    """Ask until there is something, for at most ten seconds."""
    async with asyncio.timeout(10):
        while True:
            leases = await found()
            if leases:
                return leases
            await asyncio.sleep(0.01)
