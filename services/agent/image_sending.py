"""Sending of an image of this range's engine to the host, which asked for it (`image.save_requested`).

The host's side has lost content that this range still has. The archive goes as the engine saves it, once, to the URL
of the request; what arrives is judged there. A request that came too late finds nobody listening, and ends.
"""

from __future__ import annotations

import asyncio

import aiohttp

from events.bus import NOTHING, Delivery, Outcome
from events.messages import SaveRequested
from services.errors import CyroidError, NotFound
from services.ports import SavedImages
from services.runtime.telemetry import about, get_logger

CONNECT_SECONDS = 10.0
#: The other side ends it much earlier; this bounds an agent whose other side is gone without a word.
WITHIN_SECONDS = 3600.0


class ImageSending:
    """Sends images of one engine."""

    def __init__(self, engine: SavedImages, range_id: str) -> None:
        self._engine = engine
        self._log = get_logger(role="agent", range=range_id)

    async def requested(self, delivery: Delivery[SaveRequested]) -> Outcome:
        """Send the image, or the word that it is not here. There is no second try: whoever wants it asks again."""
        request = delivery.message
        with about(delivery.envelope):
            try:
                async with asyncio.timeout(WITHIN_SECONDS):
                    status = await self._send(request)
                self._log.info("image sent", image=request.reference, transfer=request.transfer_id, status=status)
            except (CyroidError, aiohttp.ClientError, OSError, TimeoutError) as problem:
                why = str(problem) or type(problem).__name__
                self._log.warning("image not sent", image=request.reference, transfer=request.transfer_id, why=why)
        return NOTHING

    async def _send(self, request: SaveRequested) -> int:
        image = await self._engine.inspect(request.reference)
        headers = {"Authorization": f"Bearer {request.token}"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            if image is None or image.image_id not in (None, request.image_id):
                async with session.delete(request.url, allow_redirects=False):
                    raise NotFound(f"the engine has no image {request.reference} with the id {request.image_id}")
            async with self._engine.save([image.local_id]) as chunks:
                archive = {"Content-Type": "application/x-tar"}
                async with session.put(request.url, data=chunks, headers=archive, allow_redirects=False) as response:
                    return response.status
