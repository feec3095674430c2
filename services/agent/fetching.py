"""Fetching an offered archive from the tar server, as it streams; nothing is stored on the way.

OfferRefused        the offer is unknown, used or expired: a new one is needed
TarServerAway       it does not answer, or has no slot now: the same offer is good for another try
NoSpace             it has no room for the archive now; the same offer is good for another try
TransferFailed      the archive broke off
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import msgspec

from services.errors import NoSpace, TransferFailed
from services.ports import Chunks

CONNECT_SECONDS = 10.0
CHUNK_BYTES = 256 * 1024


class OfferRefused(TransferFailed):
    code = "offer_refused"


class TarServerAway(TransferFailed):
    code = "tar_server_unavailable"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An archive on its way: `total_bytes` where the server knows it, `chunks` to be read once."""

    total_bytes: int | None
    chunks: Chunks


class _Problem(msgspec.Struct):
    """The parts of an `application/problem+json` that are read here (RFC 9457)."""

    code: str = "unknown"
    detail: str = ""


@asynccontextmanager
async def fetch(url: str, token: str) -> AsyncIterator[Fetched]:
    """GET `url` with the one-use token. How long it may stand still is the caller's to watch."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        try:
            response = await session.get(url, headers=headers, allow_redirects=False)
        except aiohttp.ClientError as problem:
            raise TarServerAway(f"the tar server does not answer at {url}: {problem}") from problem
        async with response:
            if response.status != 200:
                raise await _refusal(response)
            total = response.content_length
            yield Fetched(total, _chunks(response, total))


async def _chunks(response: aiohttp.ClientResponse, total_bytes: int | None) -> AsyncIterator[bytes]:
    done = 0
    try:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            done += len(chunk)
            yield chunk
    except (aiohttp.ClientError, ConnectionError) as problem:
        raise TransferFailed(f"the archive broke off after {done} bytes: {problem}") from problem
    if total_bytes is not None and done != total_bytes:
        raise TransferFailed(f"the archive ended after {done} of {total_bytes} bytes")


async def _refusal(response: aiohttp.ClientResponse) -> TransferFailed | NoSpace:
    try:
        said = msgspec.json.decode(await response.content.read(65536), type=_Problem)
    except (msgspec.DecodeError, aiohttp.ClientError):
        said = _Problem()
    text = f"the tar server answered {response.status} ({said.code}): {said.detail or response.reason}"
    if response.status == 507:
        return NoSpace(text)
    if response.status >= 500:
        return TarServerAway(text)
    return OfferRefused(text)
