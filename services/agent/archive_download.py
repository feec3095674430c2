"""Download of an offered archive from the tar server, as a stream; nothing is stored.

OfferRefused        the offer is unknown, used or expired: a new one is needed
TarServerBusy       it is not this archive's turn: the same offer is good for another try, soon
TarServerUnavailable       it does not answer, or cannot: the same offer is good for another try
LayerDamaged        a layer of the image cannot be given by its engine: no other offer helps
NoSpace             it has no room for the archive, and waiting would make none
TransferFailed      the archive broke off
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import msgspec

from events.malformed import MALFORMED
from events.worker.backoff import backoff
from services.agent.pull import Patience
from services.errors import LayerDamaged, NoSpace, TransferFailed
from services.ports import Chunks

CONNECT_SECONDS = 10.0
#: How often those who follow a transfer are told that it waits.
RETELL_SECONDS = 5.0
#: A server that was busy has kept the request for a while already, and keeps its place for a moment.
BUSY_PAUSE_SECONDS = 1.0
AWAY_PAUSE_LIMIT_SECONDS = 10.0
CHUNK_BYTES = 256 * 1024


class OfferRefused(TransferFailed):
    """The offer is unknown, used or expired; a new one is needed."""

    code = "offer_refused"


class TarServerUnavailable(TransferFailed):
    """The tar server does not answer, or cannot serve now; the same offer may be tried again."""

    code = "tar_server_unavailable"


class TarServerBusy(TransferFailed):
    """The archive's turn has not come; the same offer may be tried again soon."""

    code = "exports_busy"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An archive being downloaded: `total_bytes` where the server reports it; `chunks` may be read once."""

    total_bytes: int | None
    chunks: Chunks


class _Problem(msgspec.Struct):
    """The parts of an `application/problem+json` that are read here (RFC 9457)."""

    code: str = "unknown"
    detail: str = ""


@asynccontextmanager
async def fetch(url: str, token: str) -> AsyncIterator[Fetched]:
    """GET `url` with the one-use token. The caller bounds how long the download may stall."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        try:
            response = await session.get(url, headers=headers, allow_redirects=False)
        except aiohttp.ClientError as problem:
            raise TarServerUnavailable(f"the tar server does not answer at {url}: {problem}") from problem
        async with response:
            if response.status != 200:
                raise await _refusal(response)
            total = response.content_length
            yield Fetched(total, _chunks(response, total))


@asynccontextmanager
async def fetch_in_turn(
    url: str, token: str, *, patience: Patience, waiting: Callable[[str], None]
) -> AsyncIterator[Fetched]:
    """As `fetch`, as soon as it is this archive's turn; `waiting` is told now and then why it is not yet.

    The wait is no failed attempt: it is reported to those who follow the transfer, and the queue may be long. Raises
    TarServerBusy or TarServerUnavailable when the patience has ended, and what `fetch` raises.
    """
    async with AsyncExitStack() as stack:
        yield await _in_turn(stack, url, token, patience, waiting)


async def _in_turn(
    stack: AsyncExitStack, url: str, token: str, patience: Patience, waiting: Callable[[str], None]
) -> Fetched:
    clock = asyncio.get_running_loop().time
    began = answered = clock()
    away = 0
    try:
        async with asyncio.timeout(patience.turn_seconds):
            while True:
                try:
                    return await _told(stack, url, token, waiting)
                except TarServerBusy as busy:
                    answered, away = clock(), 0
                    note, pause = str(busy), BUSY_PAUSE_SECONDS * random.uniform(0.2, 1.0)
                except TarServerUnavailable as problem:
                    away += 1
                    if clock() - answered > patience.away_seconds:
                        raise
                    note, pause = str(problem), backoff(away, base_seconds=0.5, limit_seconds=AWAY_PAUSE_LIMIT_SECONDS)
                waiting(note)
                await asyncio.sleep(pause)
    except TimeoutError:
        text = (
            f"the tar server at {url} did not come to this archive within {clock() - began:.0f} s: see what it exports,"
        )
        raise TarServerBusy(f"{text} or allow it more exports at a time") from None


async def _told(stack: AsyncExitStack, url: str, token: str, waiting: Callable[[str], None]) -> Fetched:
    """One request; as long as it is not answered, `waiting` is told."""
    loop = asyncio.get_running_loop()
    next_time: asyncio.TimerHandle

    def tell() -> None:
        nonlocal next_time
        next_time = loop.call_later(RETELL_SECONDS, tell)
        waiting("the tar server has not begun to answer")

    next_time = loop.call_later(RETELL_SECONDS, tell)
    try:
        return await stack.enter_async_context(fetch(url, token))
    finally:
        next_time.cancel()


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


async def _refusal(response: aiohttp.ClientResponse) -> TransferFailed | NoSpace | LayerDamaged:
    try:
        said = msgspec.json.decode(await response.content.read(65536), type=_Problem)
    except (*MALFORMED, aiohttp.ClientError):
        said = _Problem()
    text = f"the tar server answered {response.status} ({said.code}): {said.detail or response.reason}"
    if response.status == 507:
        return NoSpace(text)
    if said.code == LayerDamaged.code:
        return LayerDamaged(text)
    if response.status >= 500:
        return TarServerBusy(text) if said.code == TarServerBusy.code else TarServerUnavailable(text)
    return OfferRefused(text)
