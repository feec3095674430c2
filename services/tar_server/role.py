"""The role `tar-server`: serves ranges the archives that the deployer offered them.

Consumes no stream; it answers `GET /transfers/{transfer_id}` with `Authorization: Bearer <token>`:

    200  the archive (`application/x-tar`), with its length where that is known
    401  no token             403  wrong token                404  no such offer, or the image is gone
    409  the offer is used    410  the offer has expired      507  more than the spool can ever hold, or a full disk
    503  its turn has not come (code `exports_busy`), or what the archive is made of is unavailable
    422  a layer that its engine itself cannot give (code `layer_damaged`): no other offer helps

The deployer takes an offer back when its transfer is cancelled. An export whose last reader was of that kind ends with
it; otherwise it waits a while for a range that was cut off and comes again.

Errors before the first byte are `application/problem+json` and leave the offer as it was, so the same request may be
made again after a 503 or 507. The offer is used from the moment the first byte could go out. A failure after that
breaks the connection: no archive that is not complete ever ends cleanly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from aiohttp import web

from events.bus import BusClient, BusError, Outcome, RecordConflict
from events.records import Stored, UnreadableRecord
from events.subscription import Subscription
from services.core.deployments.offers import Offer, Refusal, offer_key
from services.errors import BadInput, CyroidError, RedisUnavailable, RequestRefused, Stalled
from services.runtime import metrics
from services.runtime.http_server import HttpLimits, listening
from services.runtime.problem_middleware import problems
from services.runtime.problem_response import problem_response
from services.runtime.telemetry import get_logger
from services.tar_server.exports import Exports
from services.tar_server.spool import Spool

log = get_logger(role="tar-server")
#: Behind a proxy all ranges come from one address; each loads a few archives at a time.
LIMITS = HttpLimits(connections=768, connections_per_client=512)
#: How long a used offer is remembered, to answer 409 instead of 404.
USED_SECONDS = 3600.0

_REFUSED: dict[Refusal, str] = {
    "wrong_token": "the token is not the one of this offer",
    "used": "the offer is used: ask for a tar again to get a new one",
    "expired": "the offer has expired: ask for a tar again to get a new one",
}


class TarServer:
    """Serves archives until cancelled. `listen` is `host:port`; port 0 takes a free one, see `address`.

    `clock` gives aware times, by which offers expire; `limits` are what its listener grants.
    """

    def __init__(
        self,
        *,
        bus: BusClient,
        prefix: str,
        exports: Exports,
        listen: str,
        stall_seconds: float = 60,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        limits: HttpLimits = LIMITS,
    ) -> None:
        self._bus = bus
        self._prefix = prefix
        self._exports = exports
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._stall = stall_seconds
        self._clock = clock
        self._limits = limits
        self._address: asyncio.Future[str] | None = None

    @property
    def name(self) -> str:
        return "tar-server"

    def subscriptions(self) -> Sequence[Subscription]:
        return ()

    async def address(self) -> str:
        """The address it listens on, `host:port`, once it does."""
        return await asyncio.shield(self._future())

    def _future(self) -> asyncio.Future[str]:
        if self._address is None:
            self._address = asyncio.get_running_loop().create_future()
        return self._address

    async def run(self) -> None:
        """Until cancelled. Raises BadInput when the spool folder cannot be used or the address is taken."""
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._exports.serving())
            except OSError as problem:
                raise BadInput(
                    f"the spool folder cannot be used: {problem.filename}: {problem.strerror}; set CYROID_SPOOL_FOLDER"
                    " to a folder in which this process may write"
                ) from problem
            refused = await self._serve()
        raise BadInput(
            f"cannot listen at {self._host}:{self._port}: {refused.strerror}; set CYROID_TAR_LISTEN"
        ) from refused

    async def _serve(self) -> OSError:
        """Serve.

        Returns the reason only if it cannot listen: raised here, the error would come out of the exports as a
        group.
        """
        application = web.Application(middlewares=[problems])
        application.router.add_get("/transfers/{transfer_id}", self._answer)
        # A client that leaves ends its request at once, and the export with it if nobody else reads.
        try:
            async with listening(
                application, self._host.strip("[]") or None, self._port, limits=self._limits, handler_cancellation=True
            ) as (host, port):
                self._future().set_result(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
                log.info("listening", address=self._future().result())
                await asyncio.Event().wait()
        except OSError as problem:
            return problem
        raise AssertionError("an event that nobody sets")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transfer_id = request.match_info["transfer_id"]
        try:
            record, offer = await self._offer(request, transfer_id)
            async with self._exports.join(offer) as spool:
                await self._spend(record, offer)
                try:
                    return await self._send(request, offer, spool)
                finally:  # also when the reader hung up, which cancels this
                    if await self._withdrawn(offer):
                        self._exports.unwanted(offer)
        except CyroidError as problem:
            log.info("refused", transfer=transfer_id, code=problem.code, why=str(problem))
            return problem_response(problem)
        except BusError as problem:
            log.warning("Redis is unavailable", transfer=transfer_id, why=str(problem))
            return problem_response(RedisUnavailable("the offer cannot be looked up now: try again"))

    async def _offer(self, request: web.Request, transfer_id: str) -> tuple[Stored[Offer], Offer]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RequestRefused("the request has no bearer token", code="no_token")
        try:
            stored = await offer_key(self._prefix, transfer_id).load(self._bus)
        except UnreadableRecord as problem:
            raise BadInput(str(problem)) from problem
        offer = stored.value
        if offer is None:
            raise RequestRefused(f"there is no offer for transfer {transfer_id}: ask for a tar again", code="no_offer")
        refusal = offer.refusal(token.strip(), self._clock())
        if refusal is not None:
            raise RequestRefused(_REFUSED[refusal], code=f"offer_{refusal}")
        return stored, offer

    async def _spend(self, stored: Stored[Offer], offer: Offer) -> None:
        """Mark the offer used, unless another request was faster."""
        key = offer_key(self._prefix, offer.transfer_id)
        write = key.write(offer.used(self._clock()), expected=stored, expires_seconds=USED_SECONDS)
        try:
            await self._bus.commit(Outcome(records=(write,)))
        except RecordConflict as conflict:
            raise RequestRefused("the offer is used, or was replaced by a new one", code="offer_used") from conflict

    async def _withdrawn(self, offer: Offer) -> bool:
        """Whether the deployer removed the offer, as it does when a transfer is cancelled."""
        try:
            return await self._bus.load(offer_key(self._prefix, offer.transfer_id).name) is None
        except BusError:
            return False

    async def _send(self, request: web.Request, offer: Offer, spool: Spool) -> web.StreamResponse:
        started, sent = time.monotonic(), 0
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        response.content_length = spool.total_bytes
        outcome = "broken"
        try:
            async with asyncio.timeout(self._stall):
                await response.prepare(request)
            async for chunk in spool.read():
                await self._write(response, chunk)
                sent += len(chunk)
            async with asyncio.timeout(self._stall):
                await response.write_eof()
            outcome = "sent"
        except (CyroidError, ConnectionError, TimeoutError) as problem:
            outcome = getattr(problem, "code", "disconnected")
            log.warning("an archive broke off", why=str(problem) or type(problem).__name__, **_about(offer))
        finally:
            if outcome != "sent" and request.transport is not None:
                request.transport.abort()
            seconds = time.monotonic() - started
            metrics.transfers.labels("export", offer.layout, "done" if outcome == "sent" else "failed").inc()
            metrics.transferred_bytes.labels("export", offer.layout).inc(sent)
            metrics.transfer_seconds.labels("export", offer.layout).observe(seconds)
            log.info("archive", outcome=outcome, bytes=sent, seconds=round(seconds, 3), **_about(offer))
        return response

    async def _write(self, response: web.StreamResponse, chunk: bytes) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await response.write(chunk)
        except TimeoutError:
            raise Stalled(f"the reader took no byte for {self._stall:g} s") from None


def _about(offer: Offer) -> dict[str, object]:
    return {
        "image": offer.reference,
        "range": offer.range_id,
        "transfer": offer.transfer_id,
        "layout": offer.layout,
        "layers": len(offer.held),
    }
