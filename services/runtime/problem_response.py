"""Errors as `application/problem+json` (RFC 9457), for every HTTP server of ours; drawn from the register of errors."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web

from services.errors import CyroidError
from services.errors.register import REGISTER, ErrorEntry

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
_INTERNAL = REGISTER["internal_error"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is an error. `code` is for a program, `detail` for a person."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    retryable: bool
    """Whether the same request may succeed later."""


def problem_response(error: CyroidError, headers: Mapping[str, str] | None = None) -> web.Response:
    """`error` as an HTTP response."""
    return response_of(error.entry, str(error), code=error.code, headers=headers)


def internal_error() -> web.Response:
    """The response to an unforeseen error. Its text may hold anything, so it is in the log alone."""
    return response_of(_INTERNAL, "something unexpected happened; the service's log has the details")


def response_of(
    entry: ErrorEntry, detail: str, *, code: str = "", headers: Mapping[str, str] | None = None
) -> web.Response:
    """The response with a problem document and the status of `entry`."""
    body = problem_of(entry, detail, code)
    fixed = {"Cache-Control": "no-store"}
    if entry.retryable and body.status in (429, 503, 507):
        fixed["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if body.status == 401:
        fixed["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=body.status,
        body=msgspec.json.encode(body),
        content_type=PROBLEM_TYPE,
        headers=fixed | dict(headers or {}),
    )


def problem_of(entry: ErrorEntry, detail: str, code: str = "") -> Problem:
    """The problem document alone; `code` where it is not the entry's own."""
    return Problem(
        title=entry.title,
        status=entry.http_status or 500,
        code=code or entry.code,
        detail=detail,
        retryable=entry.retryable,
    )
