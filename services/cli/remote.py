"""Requests of the command line to the HTTP API: its address, its token, and its errors as ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import click

from events.malformed import MALFORMED
from services.errors import BadInput, CyroidError, Unavailable
from services.errors.register import REGISTER

F = TypeVar("F", bound=Callable[..., Any])
ANSWER_SECONDS = 60.0
UPLOAD_SECONDS = 6 * 3600.0
ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
#: The API sends a heartbeat every 15 seconds: longer silence is a connection that is gone.
SILENCE_SECONDS = 60.0


class ApiProblem(CyroidError):
    """What the API answered in place of what was asked for."""


def api_option(command: F) -> F:
    """The `--api` of commands that speak with the HTTP API."""
    return click.option(
        "--api",
        "api_url",
        metavar="URL",
        envvar="CYROID_IMAGES_API",
        help="Where the API answers; its token is in CYROID_IMAGES_TOKEN or a file, CYROID_IMAGES_TOKEN_FILE."
        "  [CYROID_IMAGES_API]",
    )(command)


def full_url(api_url: str, path: str) -> str:
    """The URL of a path of the API; `ranges` is short for `/api/v1/ranges`."""
    if not api_url.startswith(("http://", "https://")):
        raise BadInput(f"the API's address is http://HOST:PORT, not {api_url!r}")
    whole = path if path.startswith("/") else f"/api/v1/{path}"
    return api_url.rstrip("/") + whole


async def send(url: str, query: Sequence[tuple[str, str]], chunks: AsyncIterator[bytes], content_type: str) -> Any:
    """Upload a stream; its JSON. Empty parameters are left out. Raises CyroidError."""
    import aiohttp

    headers = {"Accept": "application/json", "Content-Type": content_type, **_authorization()}
    params = [(name, value) for name, value in query if value]
    try:
        async with (
            asyncio.timeout(UPLOAD_SECONDS),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(url, params=params, data=chunks, headers=headers, allow_redirects=False) as answer,
        ):
            content = await answer.content.read(ANSWER_LIMIT_BYTES)
            return decoded(answer.status, answer.content_type, content)
    except (aiohttp.ClientError, TimeoutError, OSError) as problem:
        raise Unavailable(f"the upload broke off: {problem}; see: cyroid-images api get ingests") from problem


async def ask(
    method: str,
    url: str,
    *,
    query: Mapping[str, str] | None = None,
    body: object = None,
    wait_seconds: float = 0.0,
    etags: list[str] | None = None,
) -> Any:
    """One request; its JSON, or its text. Raises CyroidError.

    wait_seconds  how long the API may wait for a role
    etags         gets the ETag of what is read; what is sent replaces only that
    """
    import aiohttp

    headers = {"Accept": "application/json", **_authorization()}
    headers |= {"Prefer": f"wait={ceil(wait_seconds)}"} if wait_seconds else {}
    headers |= {"If-Match": etags[-1]} if etags and method != "GET" else {}
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS + wait_seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.request(method, url, params=query, json=body, headers=headers, allow_redirects=False) as answer,
        ):
            content = await answer.content.read(ANSWER_LIMIT_BYTES)
            if etags is not None:
                etags.append(answer.headers.get("ETag", ""))
            return decoded(answer.status, answer.content_type, content)
    except (aiohttp.ClientError, TimeoutError, OSError) as problem:
        raise Unavailable(f"the API does not answer: {problem}; see --api") from problem


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream of server-sent events. `data` is its JSON."""

    event: str
    data: bytes
    ident: str = ""


async def listen(url: str, last_id: str = "") -> AsyncGenerator[ServerSentEvent, None]:
    """Server-sent events until the server ends the stream. Raises CyroidError; Unavailable: the connection broke."""
    import aiohttp

    headers = {"Accept": "text/event-stream, application/json", **_authorization()}
    headers |= {"Last-Event-ID": last_id} if last_id else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=SILENCE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            if answer.content_type != "text/event-stream":
                decoded(answer.status, answer.content_type, await answer.content.read(ANSWER_LIMIT_BYTES))
                raise BadInput("the API's answer is no stream of events: is this its address?")
            kept = b""
            async for chunk in answer.content.iter_any():
                *whole, kept = (kept + chunk).split(b"\n\n")
                for one in whole:
                    if (found := _event_of(one)) is not None:
                        yield found
                if len(kept) > ANSWER_LIMIT_BYTES:
                    raise BadInput("an event of the API has no end: is this its address?")
    except (aiohttp.ClientError, TimeoutError, OSError) as problem:
        raise Unavailable(f"the API does not answer: {problem}; see --api") from problem


def _event_of(text: bytes) -> ServerSentEvent | None:
    """None for a comment, which is the heartbeat."""
    fields = dict(line.split(b": ", 1) for line in text.split(b"\n") if b": " in line)
    if b"data" not in fields:
        return None
    words = {name: fields.get(name, b"").decode(errors="replace") for name in (b"event", b"id")}
    return ServerSentEvent(words[b"event"], fields[b"data"], words[b"id"])


def decoded(status: int, content_type: str, content: bytes) -> Any:
    """The body of an answer. Raises ApiProblem for an error's."""
    import msgspec

    try:
        found = msgspec.json.decode(content) if "json" in content_type else content.decode(errors="replace")
    except MALFORMED as problem:
        raise BadInput("the API's answer is no JSON: is this its address?") from problem
    if status < 400:
        return found
    told = found if isinstance(found, dict) else {}
    code = str(told.get("code", "error"))
    problem_found = ApiProblem(str(told.get("detail") or f"the API answered {status}"), code=code)
    problem_found.entry = REGISTER.get(code, REGISTER["error"])
    raise problem_found


def _authorization() -> dict[str, str]:
    token = _token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _token() -> str:
    file = os.environ.get("CYROID_IMAGES_TOKEN_FILE")
    try:
        return Path(file).read_text().strip() if file else os.environ.get("CYROID_IMAGES_TOKEN", "")
    except OSError as problem:
        raise BadInput(f"CYROID_IMAGES_TOKEN_FILE cannot be read: {problem.strerror}") from problem
