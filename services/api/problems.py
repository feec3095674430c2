"""Errors as `application/problem+json` (RFC 9457), with the project's stable `code` beside the text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from events.bus import BusError, HandlingError
from services.errors import BadInput, CyroidError, RedisUnavailable
from services.telemetry import get_logger

log = get_logger(role="api")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PROBLEM = "application/problem+json"


def problem(status: int, code: str, detail: str, **more: Any) -> web.Response:
    """`detail` is for a person, `code` for a program."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "code": code}
    return web.Response(
        status=status, content_type=PROBLEM, body=msgspec.json.encode({**body, "detail": detail, **more})
    )


_TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    500: "Internal error",
    502: "A transfer failed",
    503: "Something is away",
    507: "No space",
}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around every handler: what it raises becomes a problem document."""
    try:
        return await handler(request)
    except CyroidError as error:
        return problem(error.http_status, error.code, str(error), retryable=error.retryable)
    except HandlingError as error:
        return problem(500, error.code, str(error))
    except BusError as error:
        return problem(RedisUnavailable.http_status, RedisUnavailable.code, str(error), retryable=True)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        detail = f"{request.method} {request.path}: {error.reason}"
        answer = problem(error.status, "http_error", detail)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception as error:
        log.error("request failed", method=request.method, path=request.path, exc_info=error)
        return problem(500, "internal_error", "something unexpected happened; the service's log has the details")


async def read_body(request: web.Request, kind: type[Any]) -> Any:
    """The request's JSON as a Struct. Raises BadInput with the field that is wrong."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"the request's body: {error}") from error
    except msgspec.DecodeError as error:
        raise BadInput(f"the request's body is no JSON: {error}") from error
