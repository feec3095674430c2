"""Responses: JSON with an ETag for reads, compressed where the client takes it, and never kept by a proxy."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from functools import lru_cache
from typing import Any

import msgspec
from aiohttp import web

from services.api.route import Reply, Route

#: Shorter bodies are not worth it.
_WORTH_BYTES = 1024
#: Longer ones are compressed in a thread: the event loop has others to serve.
_IN_THREAD_BYTES = 128 * 1024
#: So many answers are kept compressed.
_KEPT = 128
_NO_STORE = "no-store"
#: A browser may keep what it asks for again each time.
_REVALIDATE = "private, no-cache"


async def respond(request: web.Request, route: Route[Any, Any, Any], reply: Reply[Any]) -> web.Response:
    """The response of a route."""
    conditional = route.conditional
    headers = {"Cache-Control": _REVALIDATE if conditional else _NO_STORE, **reply.headers}
    if reply.location is not None:
        headers["Location"] = reply.location
    status = reply.status or route.status
    if route.answer is None:
        return web.Response(status=status, headers=headers)
    body = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
    headers["Content-Type"] = route.content_type
    if conditional:
        headers["Vary"] = "Accept-Encoding, Authorization, Cookie"
        etag = f'W/"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
        headers["ETag"] = etag
        if status == 200 and _matches(request.headers.get("If-None-Match", ""), etag):
            del headers["Content-Type"]
            return web.Response(status=304, headers=headers)
        if len(body) >= _WORTH_BYTES and _takes_gzip(request.headers.get("Accept-Encoding", "")):
            headers["Content-Encoding"] = "gzip"
            body = (
                await asyncio.to_thread(_compressed, body) if len(body) > _IN_THREAD_BYTES else _compressed_once(body)
            )
    return web.Response(status=status, body=body, headers=headers)


def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


@lru_cache(maxsize=_KEPT)
def _compressed_once(body: bytes) -> bytes:
    """The same list is asked for by many."""
    return _compressed(body)


def _matches(header: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, 13.1.2)."""
    wanted = etag.removeprefix("W/")
    return header.strip() == "*" or any(one.strip().removeprefix("W/") == wanted for one in header.split(","))


def _takes_gzip(header: str) -> bool:
    """Whether gzip is named, and not with a weight of nothing."""
    for part in header.split(","):
        name, _, weight = part.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
