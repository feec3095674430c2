"""Responses: JSON with an ETag for reads, compressed where the client takes it, and never kept by a proxy."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from services.api.route import Reply, Route
from services.queries.class_view import ClassView
from services.queries.read_model.listing import ListPage

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
    headers["Content-Type"] = route.content_type
    if not conditional:
        body = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
    else:
        headers["Vary"] = "Accept-Encoding, Authorization, Cookie"
        encoded = _encoded(reply.body)
        body, etag = encoded.body, encoded.etag
        headers["ETag"] = etag
        if status == 200 and matches(request.headers.get("If-None-Match", ""), etag):
            del headers["Content-Type"]
            return web.Response(status=304, headers=headers)
        if len(body) >= _WORTH_BYTES and _takes_gzip(request.headers.get("Accept-Encoding", "")):
            headers["Content-Encoding"] = "gzip"
            if encoded.compressed is None:
                long = len(body) > _IN_THREAD_BYTES
                encoded.compressed = await asyncio.to_thread(_compressed, body) if long else _compressed(body)
            body = encoded.compressed
    return web.Response(status=status, body=body, headers=headers)


@dataclass(slots=True)
class _Encoded:
    """A value as it is sent. It is held on to: as long as it is, no other value has its identity."""

    value: Any
    body: bytes
    etag: str
    compressed: bytes | None = None


#: The same list is asked for by many, and is the same object until a row changes (services.queries.read_model.listing).
_KNOWN: OrderedDict[int, _Encoded] = OrderedDict()


def _encoded(value: Any) -> _Encoded:
    """The value encoded, once for each frozen object."""
    known = _KNOWN.get(id(value))
    if known is not None and known.value is value:
        _KNOWN.move_to_end(id(value))
        return known
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    encoded = _Encoded(value, body, etag_of(body))
    if isinstance(value, ListPage | ClassView | bytes):
        _KNOWN[id(value)] = encoded
        if len(_KNOWN) > _KEPT:
            _KNOWN.popitem(last=False)
    return encoded


def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def etag_of(body: bytes) -> str:
    """The ETag of an answer: of the value, whatever way it is compressed."""
    return f'W/"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


def matches(header: str, etag: str) -> bool:
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
