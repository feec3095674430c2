"""Guards against requests that a foreign page makes a browser send: by its Host, its Origin and its content type.

Host      A page of evil.example can give its own name this server's address (DNS rebinding) and then read the answers.
          The name stays in `Host`, so only known names are answered. An address or `localhost` cannot be given away.
Origin    A page may send simple requests anywhere (CSRF). Browsers say where a request comes from, in `Origin` and in
          `Sec-Fetch-Site`; a request that changes something must come from this server's own pages, or from none.
content   A form, `text/plain` or a body without a type needs no permission of ours to be sent; JSON and archives do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, Mapping
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from services.errors import RequestRefused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAFE_METHODS = frozenset({"GET", "HEAD"})


def guards(host_names: Collection[str], uploads: Mapping[str, Collection[str]] | None = None) -> Middleware:
    """The middleware of these checks; `host_names` are accepted beside addresses and `localhost`.

    uploads  the media types that a path takes in place of JSON
    """
    uploaded = uploads or {}
    known = {name.lower() for name in host_names}

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = _host(request)
        if not _is_ours(host, known):
            raise RequestRefused("this server is not known under the name in the Host header", code="unknown_host")
        if request.method not in SAFE_METHODS:
            _check_origin(request, host)
            _check_content_type(request, uploaded)
        return await handler(request)

    return guard


def _host(request: web.Request) -> str:
    """The Host header of the request. Raises RequestRefused where there is none, or more than one."""
    values = request.headers.getall("Host", [])
    if len(values) != 1:
        raise RequestRefused("the request needs one Host header")
    return values[0].strip().lower()


def _is_ours(host: str, known: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost") or name in known:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(request: web.Request, host: str) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and _place(origin) != host:
        raise RequestRefused("the request comes from a page of another origin", code="foreign_origin")
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise RequestRefused("the request comes from a page of another site", code="foreign_origin")


def _place(origin: str) -> str | None:
    """`host:port` of an origin; None for what is no URL."""
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return None


def _check_content_type(request: web.Request, uploads: Mapping[str, Collection[str]]) -> None:
    resource = request.match_info.route.resource
    kinds = uploads.get(resource.canonical) if resource is not None else None
    if kinds is not None:
        if "Content-Type" not in request.headers or request.content_type not in kinds:
            raise RequestRefused(f"an upload has a Content-Type: {', '.join(kinds)}", code="unsupported_media_type")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise RequestRefused("an upload has no Content-Encoding: send it as it is", code="unsupported_media_type")
        return
    if not request.body_exists or request.content_length == 0:
        return
    if request.content_type != "application/json":
        raise RequestRefused(
            "a request with a body must have Content-Type: application/json", code="unsupported_media_type"
        )
