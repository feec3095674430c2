"""A route as data: its parameters, answer and required role; and the types that its handler receives and returns."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import msgspec
from aiohttp import web

from events.lease import Bus
from events.streams import Streams
from services.api.events.feed import Feed
from services.api.lists.read import ReadContext
from services.commands.ingest import IngestJobs, NoIngest
from services.ports import Chunks, Engine, Registry
from services.queries.settings import SettingView

if TYPE_CHECKING:
    from services.api.authentication import CallerAccess

Method = Literal["GET", "POST", "DELETE"]
Access = Literal["open", "viewer", "operator", "admin"]
"""The least role that may ask. `open`: anybody, without a token."""

BODY_LIMIT_BYTES = 16 * 1024
#: For bodies that may name 500 images.
LARGE_BODY_LIMIT_BYTES = 1024 * 1024
TEXT_TYPE = "text/plain"
JSON_TYPE = "application/json"


class DoctorFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check: `ok`, `wrong` or `note` (nothing is broken), what was found, and what to do."""

    state: Literal["ok", "wrong", "note"]
    what: str
    found: str
    advice: str = ""


async def no_checks() -> Sequence[DoctorFinding]:
    """No checks, for an API that has none."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """The ports that handlers use.

    reads            what lists and details are answered from
    feed             what is told to those who listen to events
    source           the envelope's source of the commands they publish
    settings         of this process, as they are shown
    doctor           runs the checks of all dependencies
    engine_networks  where the engine of a deployment's `engine_url` may be; empty: anywhere
    ingest           builds, imports and promotes on the host's engine
    answer_seconds   how long a request waits for the collector; later it is answered 202, and what it asked for goes on
    """

    bus: Bus
    streams: Streams
    registry: Registry
    engine: Engine
    reads: ReadContext
    feed: Feed
    source: str
    doctor: Callable[[], Awaitable[Sequence[DoctorFinding]]] = no_checks
    engine_networks: str = ""
    settings: Sequence[SettingView] = ()
    answer_seconds: float = 30.0
    ingest: IngestJobs = field(default_factory=NoIngest)


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route without query parameters."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The body of a route that takes uploads: read once, piece by piece. `total_bytes` is 0 where it was not said."""

    chunks: Chunks
    total_bytes: int = 0


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route without a body: nothing, or `{}`."""


Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B", bound=msgspec.Struct)
A = TypeVar("A")


async def _no_session() -> None:
    """Of a call that is made without a request."""


async def _no_token() -> None:
    """Of a call that is made without a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Q, B]):
    """A request that was parsed and checked. `actor` names who asks, as far as that is known.

    client     the caller's address
    token      gives the bearer's or the session's, not checked yet; `access` checks it
    upload     the body, where the route takes uploads
    end_session  ends the session of its cookie
    prefer     its Prefer headers (RFC 7240)
    if_match   its If-Match header
    is_secure  whether it came by TLS, to this server or to a reverse proxy that reports TLS (X-Forwarded-Proto)
    """

    context: ApiContext
    access: CallerAccess
    path: Mapping[str, str]
    query: Q
    body: B
    idempotency_key: str | None = None
    actor: str = ""
    client: str = ""
    token: Callable[[], Awaitable[str | None]] = _no_token
    end_session: Callable[[], Awaitable[None]] = _no_session
    is_secure: bool = False
    prefer: str = ""
    if_match: str = ""
    upload: Upload | None = None

    def keyed_id(self) -> str | None:
        """The same id for the same Idempotency-Key. A key may hold any text; an id may not."""
        if not self.idempotency_key:
            return None
        return f"key-{hashlib.sha256(self.idempotency_key.encode(errors='surrogateescape')).hexdigest()[:40]}"


@dataclass(frozen=True, slots=True)
class Reply(Generic[A]):
    """An answer. `status` None: the route's own. `location`: where the requested work can be followed."""

    body: A
    location: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Streamed(Protocol):
    """An answer that is sent piece by piece, and is not in memory as a whole."""

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Send it; returns when it is at its end, or when the client is gone."""


Handler = Callable[[Call[Q, B]], Awaitable[Reply[A]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[Q, B, A]):
    """One method of one path.

    path            with parameters in braces: `{range_id}`; `{reference:.+}` takes slashes too
    answer          the type of the body of `status`; None where the answer has no body
    errors          codes of `services.errors.register` beyond those that every route has
    streamed        the reply's body is `Streamed`
    upload          the media types of a body that is streamed and no JSON; at most `body_limit_bytes` of it
    constant        its answer is the same bytes as long as the process lives
    other_statuses  statuses with the body `answer` beside `status`
    """

    method: Method
    path: str
    summary: str
    handler: Handler[Q, B, A]
    answer: Any
    access: Access = "viewer"
    query: type[Q]
    body: type[B]
    status: int = 200
    other_statuses: Sequence[int] = ()
    errors: Sequence[str] = ()
    content_type: str = JSON_TYPE
    body_limit_bytes: int = BODY_LIMIT_BYTES
    idempotent_by_key: bool = False
    streamed: bool = False
    upload: Sequence[str] = ()
    constant: bool = False

    @property
    def conditional(self) -> bool:
        """Whether its answer has an ETag, and may be 304: reads that anybody may repeat."""
        is_kept = self.access != "open" or self.constant
        return self.method == "GET" and is_kept and self.content_type == JSON_TYPE

    @property
    def waits(self) -> bool:
        """Whether it waits for the answer of a role, and is answered 202 where there is none in time."""
        return self.status == HTTPStatus.OK and HTTPStatus.ACCEPTED in self.other_statuses

    @property
    def has_body(self) -> bool:
        return self.body is not NoBody
