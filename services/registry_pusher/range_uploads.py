"""Uploads of images by the agents of ranges: one archive, from one range, at a time.

    image.save_requested on the range's inbox: an id, a URL, a one-use token
    PUT /images/{upload_id}      the agent's `docker save`, with `Authorization: Bearer <token>`: 204 once it was read
    DELETE /images/{upload_id}   the range does not have the image (any more): 204
    anything else                404

A range is hostile. The listener is open only while an archive is expected, and a request without the token learns
nothing. Nothing is stored here: what arrives is read at the pace of whoever asked, who checks and bounds it.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import ClientError, StreamReader, web
from aiohttp.http import HttpProcessingError

from events.bus import BusClient
from events.envelope import Envelope, new_id
from events.messages import SaveRequested
from events.streams import Streams
from services.core.images.image import EngineImage
from services.errors import NotFound, Stalled, TransferFailed
from services.ports import Chunks
from services.runtime.http_server import HttpLimits, listening
from services.runtime.problem_middleware import problems

LIMITS = HttpLimits(connections=256, connections_per_client=4)
#: How long an agent may take to begin: its engine opens the archive first.
BEGIN_SECONDS = 60.0
_BROKEN_OFF = (OSError, ClientError, web.RequestPayloadError, HttpProcessingError)


@dataclass(slots=True)
class _Upload:
    """The archive that is expected; `begun` gives its body, or the reason why there is none."""

    id: str = field(default_factory=new_id)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    begun: asyncio.Future[StreamReader] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        known = hmac.compare_digest(given, f"Bearer {self.token}".encode())
        if not known or request.match_info["upload_id"] != self.id or self.begun.done():
            raise web.HTTPNotFound
        if request.method == "DELETE":
            self.begun.set_exception(NotFound("the range does not have the image any more"))
            return web.Response(status=204)
        self.begun.set_result(request.content)
        await self.ended.wait()
        if not request.content.at_eof() and request.transport is not None:
            request.transport.abort()  # what nobody reads is not waited for
        return web.Response(status=204)


class RangeUploads:
    """Asks agents for images. `listen` is where this process listens meanwhile, `url` how ranges reach that."""

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        listen: str,
        url: str,
        begin_seconds: float = BEGIN_SECONDS,
        stall_seconds: float = 60.0,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._host, _, self._port = listen.rpartition(":")
        self._url = url.rstrip("/")
        self._begin = begin_seconds
        self._stall = stall_seconds

    @asynccontextmanager
    async def archive(self, range_id: str, reference: str, image_id: str) -> AsyncIterator[Chunks]:
        """The archive that the range's agent sends of its image, in chunks: untrusted, of any length.

        Raises NotFound, TransferFailed, Stalled, BusError; OSError where it cannot be listened at.
        """
        upload = _Upload()
        app = web.Application(middlewares=[problems])
        for method in ("PUT", "DELETE"):
            app.router.add_route(method, "/images/{upload_id}", upload.answer)
        host, port = self._host.strip("[]") or None, int(self._port)
        # Decompressed, a few bytes could be many: what claims to be compressed is read as it is.
        async with listening(app, host, port, limits=LIMITS, auto_decompress=False):
            await self._ask(range_id, reference, image_id, upload)
            try:
                yield self._chunks(await self._begun(range_id, upload), range_id)
            finally:
                upload.ended.set()
                upload.begun.cancel()

    async def _ask(self, range_id: str, reference: str, image_id: str, upload: _Upload) -> None:
        message = SaveRequested(
            transfer_id=upload.id,
            reference=reference,
            image_id=image_id,
            url=f"{self._url}/images/{upload.id}",
            token=upload.token,
        )
        asked = Envelope(message=message, source=self._source, subject=reference)
        await self._bus.publish(self._streams.inbox(range_id), asked)

    async def _begun(self, range_id: str, upload: _Upload) -> StreamReader:
        try:
            async with asyncio.timeout(self._begin):
                return await upload.begun
        except TimeoutError:
            raise TransferFailed(
                f"the agent of {range_id} did not begin within {self._begin:g} s: it must run, and reach {self._url}"
            ) from None

    async def _chunks(self, content: StreamReader, range_id: str) -> AsyncIterator[bytes]:
        try:
            while True:
                async with asyncio.timeout(self._stall):
                    chunk = await content.readany()
                if not chunk:
                    return
                yield chunk
        except TimeoutError:
            raise Stalled(f"the agent of {range_id} sent no byte for {self._stall:g} s") from None
        except _BROKEN_OFF as problem:
            raise TransferFailed(f"the image from {range_id} broke off: {problem!r}") from problem


@dataclass(frozen=True, slots=True)
class RangeImage:
    """The `SavedImages` port: one image of a range with an agent. `image` is what the range should have, not proof."""

    uploads: RangeUploads
    range_id: str
    reference: str
    image_id: str
    image: EngineImage

    async def inspect(self, reference: str) -> EngineImage | None:
        return self.image if reference == self.reference else None

    @asynccontextmanager
    async def save(self, references: Sequence[str]) -> AsyncIterator[Chunks]:
        async with self.uploads.archive(self.range_id, self.reference, self.image_id) as chunks:
            yield chunks
