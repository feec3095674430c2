"""What a push announces before it relies on it."""

from __future__ import annotations

from services.adapters.memory_registry import MemoryRegistry
from services.core.store.intents import INTENT_SECONDS, intents_key
from services.registry_pusher.intents import AnnouncingRegistry
from tests.unit.services.twins import Cluster

DIGEST = "sha256:" + "1" * 64


class Watched(MemoryRegistry):
    """A registry that remembers what was announced when it was asked."""

    def __init__(self, world: Cluster) -> None:
        super().__init__()
        self._world = world
        self.announced: list[list[str]] = []

    async def blob_size(self, repository: str, digest: str) -> int | None:
        self.announced.append(await self._world.bus.members(intents_key("test")))
        return await super().blob_size(repository, digest)


async def test_a_digest_is_announced_before_the_registry_is_asked() -> None:
    """Whatever the registry answers, a collection already knows that the blob is relied on."""
    world = Cluster()
    registry = Watched(world)
    await AnnouncingRegistry(registry, bus=world.bus, prefix="test").blob_size("web", DIGEST)
    assert registry.announced == [[DIGEST]]


async def test_an_announcement_is_repeated_when_half_its_time_is_over() -> None:
    """A long push stays protected, and a short one announces once."""
    world, now = Cluster(), [1000.0]
    announcing = AnnouncingRegistry(Watched(world), bus=world.bus, prefix="test", clock=lambda: now[0])
    await announcing.blob_size("web", DIGEST)
    now[0] += INTENT_SECONDS / 2 - 1
    await announcing.blob_size("web", DIGEST)
    assert await world.bus.members(intents_key("test"), low=1000.0 + INTENT_SECONDS + 1) == []
    now[0] += 2
    await announcing.blob_size("web", DIGEST)
    assert await world.bus.members(intents_key("test"), low=1000.0 + INTENT_SECONDS + 1) == [DIGEST]
