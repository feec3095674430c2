"""The reclaimer of a storm as a process that can be killed: pushes, host reclaims and fetches without a pause.

Run as `python -m bench.collect.reclaimer_process REGISTRY_URL REDIS_URL PREFIX ENGINE_URL CRASH REFERENCE…`. CRASH is
the chance that the process kills itself at any one call to the engine, before or after it. The engine is a real one:
what the process leaves half done there is what the next one finds.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import suppress
from typing import Any

from events.messages import FetchRequested
from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.engine import DockerEngine
from services.adapters.registry import HttpRegistry
from services.adapters.save_stream import SaveStream
from services.core.images.references import Reference
from services.errors import CyroidError
from services.ports import Engine, Registry
from services.registry_pusher.host_reclaim import HostReclaim
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.intents import AnnouncingRegistry
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush


class FragileEngine(DockerEngine):
    """An engine whose client may be killed before or after any change of its names."""

    crash = 0.0
    CHANGES = ("inspect", "tag", "untag")

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in FragileEngine.CHANGES:
            return found

        async def struck(*arguments: Any) -> Any:
            self._strike()
            result = await found(*arguments)
            self._strike()
            return result

        return struck

    def _strike(self) -> None:
        if random.random() < self.crash:
            os.kill(os.getpid(), signal.SIGKILL)


async def reclaim_for_ever(engine: Engine, registry: Registry, bus: RedisBus, prefix: str, names: list[str]) -> None:
    """Until it is killed: what the engine has is pushed and freed, what it has not is brought back.

    All is composed as in `services.resources`, on an engine whose folders are not mounted.
    """
    sources, authority = [SaveStream(engine)], registry.address
    encodings = LayerEncodings(bus=bus, prefix=prefix)
    layers = LayerPush(registry=registry, sources=sources, encodings=encodings)
    push = ImagePush(engine=engine, registry=registry, sources=sources, layers=layers, engine_registry=authority)
    reclaim = HostReclaim(engine=engine, registry=registry, push=push, engine_registry=authority)
    while True:
        name = random.choice(names)
        with suppress(CyroidError):  # the registry was killed in the middle
            image = await engine.inspect(name)
            if image is None:
                await reclaim.fetch(FetchRequested(reference=name))
            else:
                await push.push(name)
                await reclaim.reclaim(Reference.parse(name), image, dry_run=False)
        await asyncio.sleep(0.1)


async def main(arguments: list[str]) -> None:
    registry_url, redis_url, prefix, engine_url, crash, *names = arguments
    async with (
        RedisBus.open(redis_url, streams=Streams(prefix)) as bus,
        HttpRegistry.open(registry_url, address=registry_url.partition("//")[2]) as plain,
        FragileEngine.open(engine_url) as engine,
    ):
        engine.crash = float(crash)
        await reclaim_for_ever(engine, AnnouncingRegistry(plain, bus=bus, prefix=prefix), bus, prefix, names)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
