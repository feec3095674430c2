"""`/livez` touches nothing, `/readyz` asks every dependency, `/metrics` is for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from events.bus import BusError, HandlingError
from events.lease import Bus
from events.streams import Streams
from services import metrics
from services.api.answers import answer
from services.api.backlog import measure

PATIENCE_SECONDS = 3.0
Ping = Callable[[], Awaitable[None]]
BUS = web.AppKey("bus", Bus)
STREAMS = web.AppKey("streams", Streams)
PINGS = web.AppKey("pings", dict[str, Ping])


async def livez(request: web.Request) -> web.Response:
    """The process answers; nothing else is asked."""
    return answer({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Per dependency, all asked at once; 503 if one does not answer."""
    pings = request.app[PINGS]
    said = dict(zip(pings, await asyncio.gather(*(_ask(ping) for ping in pings.values())), strict=True))
    for name, problem in said.items():
        metrics.dependency_up.labels(dependency=name).set(problem is None)
    ready = all(problem is None for problem in said.values())
    body = {
        "status": "ok" if ready else "unavailable",
        "dependencies": {
            name: {"status": "ok"} if problem is None else {"status": "unavailable", "detail": problem}
            for name, problem in said.items()
        },
    }
    return answer(body, status=200 if ready else 503)


async def exposition(request: web.Request) -> web.Response:
    """Prometheus' text format. How far groups are behind is asked now; without Redis the last answer stays."""
    with suppress(BusError, TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await measure(request.app[BUS], request.app[STREAMS])
    return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _ask(ping: Ping) -> str | None:
    """None if it answered, otherwise why not."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ping()
    except TimeoutError:
        return f"no answer within {PATIENCE_SECONDS:g} seconds"
    except (HandlingError, BusError, OSError) as problem:
        return str(problem)
    return None
