"""Uploads: the body of a request as a stream, bounded in size and by how long a client may be silent.

What is not read yet stays in the client: nothing is kept but what the connection holds (some 128 KiB), so a slow engine
makes a slow upload and no large one. Time counts only while this side waits for the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import ClientError, web

from services.api.route import Upload
from services.errors import RequestRefused

QUIET_SECONDS = 30.0
#: After a refusal, so long and so much is still taken, so that the client comes to read why.
_REST_SECONDS = 3.0
_REST_BYTES = 64 * 1024 * 1024


def upload_of(request: web.Request, limit_bytes: int) -> Upload:
    """The body of `request`, to be read once."""
    return Upload(_chunks(request, limit_bytes), request.content_length or 0)


async def _chunks(request: web.Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """Raises RequestRefused for what is too much, too slow, or breaks off."""
    taken = 0
    if (request.content_length or 0) > limit_bytes:
        raise RequestRefused(f"the upload has more than {limit_bytes} bytes", code="too_large")
    while True:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                chunk = await request.content.readany()
        except TimeoutError:
            raise RequestRefused(f"the client sent nothing for {QUIET_SECONDS:g} seconds", code="timeout") from None
        except (ConnectionError, ClientError, web.RequestPayloadError) as problem:
            raise RequestRefused("the upload broke off") from problem
        if not chunk:
            return
        taken += len(chunk)
        if taken > limit_bytes:
            raise RequestRefused(f"the upload has more than {limit_bytes} bytes", code="too_large")
        yield chunk


async def pass_over_rest(request: web.Request) -> None:
    """Take a little of what was not read. A client that sends and only then reads would not get the answer."""
    left = _REST_BYTES
    try:
        async with asyncio.timeout(_REST_SECONDS):
            while left > 0 and not request.content.at_eof():
                left -= len(await request.content.readany())
    except (TimeoutError, ConnectionError, ClientError, web.RequestPayloadError):
        return
