"""The page's files, served from memory with a strict Content-Security-Policy.

`index.html` names the others below the hash of them all (`page/HASH/app.js`), so a browser keeps them without
another request, and has all of another version with the next reload.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors "
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent: plain and compressed."""

    content: bytes
    compressed: bytes
    content_type: str
    etag: str


#: Asked for again each time, and kept for as long as the address stays the same.
_CHECKED, _KEPT = "no-cache", "max-age=31536000, immutable"
_VERSION = re.compile(r"[0-9a-f]{16}(?=/)")


def page_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Every file of the page by its path below `folder`."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in _TYPES]
    return {path.relative_to(folder).as_posix(): _file(path.read_bytes(), path.suffix) for path in paths}


def version_of(files: Mapping[str, PageFile]) -> str:
    """The hash of all files: 16 hexadecimal digits."""
    tags = "\n".join(f"{name} {file.etag}" for name, file in sorted(files.items()))
    return hashlib.sha256(tags.encode()).hexdigest()[:16]


def _file(content: bytes, suffix: str) -> PageFile:
    return PageFile(
        content=content,
        compressed=gzip.compress(content, mtime=0),
        content_type=_TYPES[suffix],
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )


def content_security_policy(frame_ancestors: str = "") -> str:
    """The policy. `frame_ancestors`: origins separated by commas (and `self`) whose pages may show this one."""
    origins = [one.strip() for one in frame_ancestors.split(",") if one.strip()]
    return _POLICY + (" ".join("'self'" if one == "self" else one for one in origins) or "'none'")


def add_page(app: web.Application, *, frame_ancestors: str = "") -> None:
    """Serve the page at `/`, its files below `/page/`. Its URLs are relative, so a proxy may add a prefix."""
    files = page_files()
    version, policy = version_of(files), content_security_policy(frame_ancestors)
    first = _file(files.pop("index.html").content.replace(b'"page/', f'"page/{version}/'.encode()), ".html")

    async def index(request: web.Request) -> web.Response:
        return _answer(request, first, policy, _CHECKED)

    async def file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        asked = _VERSION.match(name)
        found = files.get(name[len(asked[0]) + 1 :] if asked else name)
        if found is None:
            raise web.HTTPNotFound
        # While versions change, a process may be asked for a file of the other one: nobody keeps that answer.
        return _answer(request, found, policy, _KEPT if asked and asked[0] == version else _CHECKED)

    app.router.add_get("/", index)
    app.router.add_get("/page/{name:.+}", file)


def _answer(request: web.Request, file: PageFile, policy: str, kept: str) -> web.Response:
    headers = {
        "Cache-Control": kept,
        "Content-Security-Policy": policy,
        "Content-Type": file.content_type,
        "Cross-Origin-Resource-Policy": "same-origin",
        "ETag": file.etag,
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if file.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", "").lower():
        return web.Response(body=file.compressed, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=file.content, headers=headers)
