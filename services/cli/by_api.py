"""Commands that the HTTP API carries out where `--api` says where it is; answers are printed as `api` prints them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

import click
from click.core import ParameterSource

from services.cli.api import show
from services.cli.command_group import complain
from services.cli.remote import ApiProblem, api_option, ask, full_url

if TYPE_CHECKING:
    import msgspec

#: So many pages of a list are put together.
_PAGES = 100
FAILED_STATUS = 5
LOOK_SECONDS = 1.0
NO_ANSWER = "there is no answer yet; the work goes on: see whether its role runs (cyroid-images doctor)"
S = TypeVar("S", bound="msgspec.Struct")
T = TypeVar("T")
Method = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Sends requests to the API at `url`.

    wait_seconds  how long the API may wait for a role; 0: as long as it does by itself. A reverse proxy may have less
                  patience, so only who says --timeout gets more
    """

    url: str
    wait_seconds: float = 0.0

    async def __call__(
        self,
        method: Method,
        path: Sequence[str],
        *,
        query: Any = None,
        body: Any = None,
        etags: list[str] | None = None,
    ) -> Any:
        """The JSON of one answer; the words of `path` are quoted. Raises CyroidError."""
        whole = "/".join(quote(word, safe="/:@") for word in path)
        wait = 0.0 if method == "GET" else self.wait_seconds
        return await ask(
            method, full_url(self.url, whole), query=query or {}, body=body, wait_seconds=wait, etags=etags
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """What is asked of the API in place of a command.

    follow    where the requested work is looked at until its end, as a path with fields of the answer: `pushes/{id}`
    failed    whether what was answered, or the work's end, counts as failed, or the reason why; then the exit status is
              `failed_status`
    answered  what is printed where the answer is empty
    steps     what is done in place of one request, where a command takes several
    shown     prints the answer, or its JSON; by default as `api` does
    """

    method: Method = "GET"
    path: tuple[str, ...] = ()
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    follow: str = ""
    failed: Callable[[Any], bool | str] = lambda answer: False
    failed_status: int = FAILED_STATUS
    answered: Any = None
    steps: Callable[[Caller], Awaitable[Any]] | None = None
    shown: Callable[[Any, bool], None] = show


Command = Callable[..., Any]


def get(*path: str, **query: object) -> ApiRequest:
    """A list or a detail. Parameters that are empty are left out."""
    return ApiRequest(path=path, query=_words(query))


def delete(*path: str, answered: Any = None, **query: object) -> ApiRequest:
    """A deletion. Parameters that are empty or false are left out."""
    return ApiRequest(
        method="DELETE", path=path, query=_words({name: query[name] or "" for name in query}), answered=answered
    )


def post(*path: str, failed: Callable[[Any], bool | str] = lambda answer: False, **body: object) -> ApiRequest:
    """A command to a role that answers, or has not yet; then it counts as failed. Fields that are None are left out."""

    def is_failed(answer: Any) -> bool | str:
        return NO_ANSWER if answer.get("ended") is False else failed(answer)

    said = {name: list(value) if isinstance(value, tuple) else value for name, value in body.items()}
    return ApiRequest(
        method="POST",
        path=path,
        body={name: value for name, value in said.items() if value is not None},
        failed=is_failed,
    )


def changed(kind: type[S], change: Callable[[S], S], *path: str, shown: Callable[[S, bool], None]) -> ApiRequest:
    """Change a setting that is read and replaced as a whole. Again, where somebody else changed it meanwhile."""

    async def steps(call: Caller) -> Any:
        import msgspec

        while True:
            etags: list[str] = []
            before = converted(await call("GET", path, etags=etags), kind)
            after = change(before)
            if after == before:
                return before
            try:
                return converted(await call("POST", path, body=msgspec.to_builtins(after), etags=etags), kind)
            except ApiProblem as problem:
                if problem.code != "changed_meanwhile":
                    raise

    return ApiRequest(steps=steps, shown=shown)


def converted(answer: Any, kind: type[T]) -> T:
    """An answer of the API as one of this version. Raises BadInput."""
    import msgspec

    from services.errors import BadInput

    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as problem:
        raise BadInput(f"the API's answer is none of this version: {problem}") from problem


def _words(query: dict[str, object]) -> dict[str, str]:
    words = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}
    return {name: word for name, word in words.items() if word}


def by_api(make: Callable[..., ApiRequest | Sequence[ApiRequest]]) -> Callable[[Command], Command]:
    """The `--api` of a command: `make` gets its other options, and says what is asked instead.

    Of several requests each is sent, also behind one that is refused; the answers are printed as a list. A command's
    `--timeout` bounds the waiting. It stands below `click.pass_context`.
    """

    def decorate(command: Command) -> Command:
        @api_option
        @wraps(command)
        def either(context: click.Context, /, *, api_url: str | None, as_json: bool, **options: Any) -> Any:
            if api_url is None:
                return command(context, as_json=as_json, **options)
            asked = make(**options)
            timeout = options.get("timeout")
            said = context.get_parameter_source("timeout") is ParameterSource.COMMANDLINE
            try:
                call = Caller(api_url, timeout if said and timeout else 0.0)
                status = asyncio.run(_within(timeout, _carried_out(call, asked, as_json)))
            except TimeoutError:
                complain(f"not ended after {timeout:g} seconds; it goes on")
                status = FAILED_STATUS
            context.exit(status)

        return either

    return decorate


async def _within(seconds: float | None, work: Awaitable[int]) -> int:
    async with asyncio.timeout(seconds):
        return await work


async def _carried_out(call: Caller, asked: ApiRequest | Sequence[ApiRequest], as_json: bool) -> int:
    """Send and print; the exit status."""
    if isinstance(asked, ApiRequest):
        found = await _answer(call, asked)
        asked.shown(found, as_json)
        return _status(asked, found)
    items, status = [], 0
    for one in asked:
        try:
            found = await _answer(call, one)
        except ApiProblem as problem:
            complain(str(problem))
            status = max(status, problem.entry.exit_status)
        else:
            items.append(found)
            status = max(status, _status(one, found))
    show({"items": items}, as_json)
    return status


def _status(asked: ApiRequest, found: Any) -> int:
    failed = asked.failed(found)
    if isinstance(failed, str) and failed:
        complain(failed)
    return asked.failed_status if failed else 0


async def _answer(call: Caller, asked: ApiRequest) -> Any:
    if asked.steps is not None:
        return await asked.steps(call)
    found = await call(asked.method, asked.path, query=asked.query, body=asked.body)
    if asked.method == "GET" and "limit" not in asked.query:
        return await _whole(call, asked, found)
    if asked.follow:
        return await _end_of(full_url(call.url, asked.follow.format(**found)))
    return found if found not in (None, "") else asked.answered


async def _end_of(url: str) -> Any:
    """What is there once the work has ended."""
    while True:
        found = await ask("GET", url)
        if found.get("ended") or found.get("ended_at"):
            return found
        await asyncio.sleep(LOOK_SECONDS)


async def _whole(call: Caller, asked: ApiRequest, found: Any) -> Any:
    """A list with all its pages."""
    pages = 1
    while isinstance(found, dict) and found.get("next") and pages < _PAGES:
        more = await call(asked.method, asked.path, query={**asked.query, "cursor": str(found["next"])})
        found = {**more, "items": [*found["items"], *more["items"]]}
        pages += 1
    return found


def deploy_request(wait: bool, timeout: float | None, **request: Any) -> ApiRequest:
    """The request of `deploy`."""
    body = {name: list(value) if isinstance(value, tuple) else value for name, value in request.items() if value}
    return ApiRequest(
        method="POST",
        path=("deployments",),
        body={**body, "priority": request["priority"]},
        follow="deployments/{deployment_id}" if wait else "",
        failed=lambda answer: wait and answer.get("state") != "succeeded",
    )
