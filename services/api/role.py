"""The role `api`: serves HTTP, listens to no stream, emits commands that callers ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from events.bus import Subscription
from events.lease import Bus
from events.streams import Streams
from services.api.app import Api
from services.errors import BadInput
from services.ports import Engine, Registry
from services.statistics import Statistics
from services.telemetry import get_logger

log = get_logger(role="api")
GOODBYE_SECONDS = 5.0


class ApiRole:
    """The HTTP API on `listen` (`host:port`)."""

    name = "api"

    def __init__(
        self,
        *,
        listen: str,
        bus: Bus,
        streams: Streams,
        registry: Registry,
        engine: Engine,
        storage: str,
        source: str,
    ) -> None:
        self._listen = listen
        self._api = Api(
            bus=bus,
            streams=streams,
            registry=registry,
            engine=engine,
            statistics=Statistics(registry=registry, storage=storage),
            source=source,
        )

    def subscriptions(self) -> Sequence[Subscription]:
        return ()

    async def run(self) -> None:
        """Until cancelled. Raises BadInput when the address is taken."""
        host, _, port = self._listen.rpartition(":")
        runner = web.AppRunner(self._api.app(), access_log=None, shutdown_timeout=GOODBYE_SECONDS)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host.strip("[]"), int(port))
            try:
                await site.start()
            except OSError as problem:
                raise BadInput(
                    f"cannot listen at {self._listen}: {problem.strerror}; set CYROID_API_LISTEN"
                ) from problem
            log.info("listening", url=site.name)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
