"""Operations listener: liveness, readiness and metrics of one process, over HTTP.

    GET /livez     200 while the process answers at all; nothing else is asked
    GET /readyz    200 while it can take work, 503 otherwise; a line for each dependency (`services.runtime.readiness`)
    GET /metrics   every metric of this process, in Prometheus' text format

It is there before the process waits for Redis, so a process that waits is alive and not ready. It listens where
CYROID_OPERATIONS_LISTEN says, and answers only clients in the networks of CYROID_OPERATIONS_CLIENTS: a process that
stands on a range's network can be reached from there under each of its addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import msgspec
from aiohttp import web

from services.errors import BadInput
from services.runtime import metrics
from services.runtime.http_server import HttpLimits, listening
from services.runtime.problem_middleware import problems
from services.runtime.readiness import Dependency, Readiness, readiness
from services.runtime.telemetry import get_logger

log = get_logger(role="operations")
Phase = Literal["starting", "running", "stopping"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: A few scrapers and health checks.
_LIMITS = HttpLimits(connections=128, connections_per_client=32)


def networks(text: str) -> tuple[Network, ...]:
    """Parse `172.30.0.0/24,10.1.2.3` into networks; an empty text is an empty tuple. Raises BadInput."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as problem:
        raise BadInput(f"CYROID_OPERATIONS_CLIENTS: {problem}", code="bad_setting") from problem


class Operations:
    """The three paths of one process.

    dependencies  asked anew for each request: adapters are opened while the process starts
    phase         whether the process has not begun yet, takes work, or has been asked to stop
    clients       networks whose addresses are answered; none means everybody
    """

    def __init__(
        self,
        *,
        dependencies: Callable[[], Mapping[str, Dependency]],
        phase: Callable[[], Phase],
        clients: Sequence[Network] = (),
    ) -> None:
        self._dependencies = dependencies
        self._phase = phase
        self._clients = clients

    def app(self) -> web.Application:
        """The application, ready to be served."""
        app = web.Application(middlewares=[problems, self._only_clients], client_max_size=1024)
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._metrics)]
        )
        return app

    @asynccontextmanager
    async def listen(self, address: str) -> AsyncIterator[str]:
        """Serve at `HOST:PORT` while inside; yields the URL. Raises BadInput when the address cannot be used."""
        host, _, port = address.rpartition(":")
        async with AsyncExitStack() as stack:
            try:
                listener = listening(self.app(), host.strip("[]"), int(port), limits=_LIMITS, goodbye_seconds=1.0)
                found = await stack.enter_async_context(listener)
            except (OSError, OverflowError) as problem:
                reason = getattr(problem, "strerror", None) or problem
                raise BadInput(
                    f"cannot listen at {address}: {reason}; set CYROID_OPERATIONS_LISTEN", code="bad_setting"
                ) from problem
            url = f"http://{host}:{found[1]}"
            log.info("listening", url=url)
            yield url

    @web.middleware
    async def _only_clients(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._clients and not self._is_client(request.remote):
            return web.Response(status=403, text="not a client of CYROID_OPERATIONS_CLIENTS\n")
        return await handler(request)

    def _is_client(self, remote: str | None) -> bool:
        if remote is None:
            return False
        address = ipaddress.ip_address(remote.partition("%")[0])
        plain = getattr(address, "ipv4_mapped", None) or address
        return any(plain in network for network in self._clients)

    async def _livez(self, request: web.Request) -> web.Response:
        return _json({"status": "ok"}, 200)

    async def _readyz(self, request: web.Request) -> web.Response:
        found = await readiness(self._dependencies())
        phase = self._phase()
        if phase != "running":
            found = Readiness(phase, found.dependencies)
        return _json(found, found.http_status)

    async def _metrics(self, request: web.Request) -> web.Response:
        """Dependencies are asked as well, so that `cyroid_dependency_up` is about now."""
        await readiness(self._dependencies())
        return web.Response(body=metrics.exposition(), headers={"Content-Type": METRICS_TYPE})


def _json(body: object, status: int) -> web.Response:
    return web.Response(
        status=status,
        content_type="application/json",
        body=msgspec.json.encode(body),
        headers={"Cache-Control": "no-store"},
    )
