"""Middleware that turns what a handler or the router raises into a problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from events.bus import BusError, HandlingError
from services.errors import CyroidError, of_bus
from services.errors.register import REGISTER
from services.runtime.problem_response import internal_error, problem_response, response_of
from services.runtime.telemetry import get_logger

log = get_logger(role="http")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The middleware, around every handler."""
    try:
        return await handler(request)
    except CyroidError as error:
        return problem_response(error)
    except BusError as error:
        return problem_response(of_bus(error))
    except HandlingError as error:
        return response_of(REGISTER["error"], str(error), code=error.code)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _of_aiohttp(request, error)
    except Exception as error:
        log.error("request failed", method=request.method, path=request.path[:200], exc_info=error)
        return internal_error()


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> web.Response:
    """The problem for an error of the router: no such path, no such method."""
    entry = REGISTER[_HTTP_CODES.get(error.status, "bad_request")]
    allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return response_of(entry, f"{request.method} {request.path[:200]}: {error.reason}", headers=allowed)
