"""Commands that the HTTP API carries out where `--api` says where it is: one request, printed as `api` prints it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal
from urllib.parse import quote

import click

from services.cli.api import show
from services.cli.remote import api_option, ask, full_url

#: So many pages of a list are put together.
_PAGES = 100
FAILED_STATUS = 5
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """One request; the words of `path` are quoted.

    follow  where the requested work is looked at until it has ended, as a path with fields of the answer: `pushes/{id}`
    failed  whether what was answered, or the work's end, counts as failed; then the exit status is `failed_status`
    """

    method: Literal["GET", "POST", "DELETE"] = "GET"
    path: tuple[str, ...]
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    follow: str = ""
    failed: Callable[[Any], bool] = lambda answer: False
    failed_status: int = FAILED_STATUS


Command = Callable[..., Any]


def get(*path: str, **query: object) -> ApiRequest:
    """A list or a detail. Parameters that are empty are left out."""
    words = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}
    return ApiRequest(path=path, query={name: word for name, word in words.items() if word})


def by_api(make: Callable[..., ApiRequest]) -> Callable[[Command], Command]:
    """The `--api` of a command: `make` gets its other options, and says what is asked instead.

    It stands below `click.pass_context`.
    """

    def decorate(command: Command) -> Command:
        @api_option
        @wraps(command)
        def either(context: click.Context, /, *, api_url: str | None, as_json: bool, **options: Any) -> Any:
            if api_url is None:
                return command(context, as_json=as_json, **options)
            asked = make(**options)
            found = asyncio.run(_answer(api_url, asked))
            show(found, as_json)
            context.exit(asked.failed_status if asked.failed(found) else 0)

        return either

    return decorate


async def _answer(api_url: str, asked: ApiRequest) -> Any:
    path = "/".join(quote(word, safe="/:@") for word in asked.path)
    found = await ask(asked.method, full_url(api_url, path), query=asked.query, body=asked.body)
    if asked.method == "GET" and "limit" not in asked.query:
        return await _whole(api_url, path, asked, found)
    return await _end_of(full_url(api_url, asked.follow.format(**found))) if asked.follow else found


async def _end_of(url: str) -> Any:
    """What is there once the work has ended."""
    while True:
        found = await ask("GET", url)
        if found.get("ended") or found.get("ended_at"):
            return found
        await asyncio.sleep(LOOK_SECONDS)


async def _whole(api_url: str, path: str, asked: ApiRequest, found: Any) -> Any:
    """A list with all its pages."""
    pages = 1
    while isinstance(found, dict) and found.get("next") and pages < _PAGES:
        query = {**asked.query, "cursor": str(found["next"])}
        more = await ask(asked.method, full_url(api_url, path), query=query)
        found = {**more, "items": [*found["items"], *more["items"]]}
        pages += 1
    return found


def deploy_request(wait: bool, timeout: float | None, **request: Any) -> ApiRequest:
    """The request of `deploy`; it waits without a limit of time."""
    body = {name: list(value) if isinstance(value, tuple) else value for name, value in request.items() if value}
    return ApiRequest(
        method="POST",
        path=("deployments",),
        body={**body, "priority": request["priority"]},
        follow="deployments/{deployment_id}" if wait else "",
        failed=lambda answer: wait and answer.get("state") != "succeeded",
    )
