"""A read as data: path, parameters, answer, and the function that gives it from the read model alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from events.lease import Bus
from events.streams import Streams
from services.queries.logged_events import LoggedEvent
from services.queries.read_model.mirror import Mirror

Q = TypeVar("Q", bound=msgspec.Struct)
A = TypeVar("A")
Text = Annotated[str, Meta(max_length=1024, description="text of at most 1024 characters")]
#: `as_of` is told in steps, so that an answer with the same rows is the same answer (ETag).
_STEP_SECONDS = 5


class Recent:
    """The latest events, the newest first. Filled by whoever follows the streams."""

    def entries(self) -> Sequence[LoggedEvent]:
        """The events that are kept."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadContext:
    """What reads are answered from."""

    mirror: Mirror
    bus: Bus
    streams: Streams
    recent: Recent

    @property
    def as_of(self) -> datetime | None:
        """When the read model was last brought up to date, in steps of some seconds."""
        return stepped(self.mirror.as_of)


def stepped(at: datetime | None) -> datetime | None:
    """A time without what makes every answer another one."""
    if at is None:
        return None
    return datetime.fromtimestamp(at.timestamp() // _STEP_SECONDS * _STEP_SECONDS, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Generic[Q, A]):
    """A list or a detail. `errors` are codes beyond those that every route has."""

    path: str
    summary: str
    query: type[Q]
    answer: Any
    function: Callable[[ReadContext, Mapping[str, str], Q], Awaitable[A]]
    errors: Sequence[str] = ()
