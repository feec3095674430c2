"""The page's files, served from memory with a strict Content-Security-Policy."""

from __future__ import annotations

import gzip
import hashlib
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


def page_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Every file of the page by its path below `folder`."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in _TYPES]
    return {path.relative_to(folder).as_posix(): _file(path) for path in paths}


def _file(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(
        content=content,
        compressed=gzip.compress(content, mtime=0),
        content_type=_TYPES[path.suffix],
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )


def content_security_policy(frame_ancestors: str = "") -> str:
    """The policy. `frame_ancestors`: origins separated by commas (and `self`) whose pages may show this one."""
    origins = [one.strip() for one in frame_ancestors.split(",") if one.strip()]
    return _POLICY + (" ".join("'self'" if one == "self" else one for one in origins) or "'none'")


def add_page(app: web.Application, *, frame_ancestors: str = "") -> None:
    """Serve the page at `/`, its files below `/page/`. Its URLs are relative, so a proxy may add a prefix."""
    files = page_files()
    policy = content_security_policy(frame_ancestors)

    async def index(request: web.Request) -> web.Response:
        return _answer(request, files["index.html"], policy)

    async def file(request: web.Request) -> web.Response:
        found = files.get(request.match_info["name"])
        if found is None or found is files["index.html"]:
            raise web.HTTPNotFound
        return _answer(request, found, policy)

    app.router.add_get("/", index)
    app.router.add_get("/page/{name:.+}", file)


def _answer(request: web.Request, file: PageFile, policy: str) -> web.Response:
    """The browser asks each time whether the file changed, so a new version is there with the next reload."""
    headers = {
        "Cache-Control": "no-cache",
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
