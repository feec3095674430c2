"""Subscriptions: the streams that a worker consumes, and the table of its handlers, one registration per message type.

    Handlers().on(DeploymentRequested, self.requested, key=lambda delivery: …, give_up=self.not_taken)

`key` makes handling single-flight: of all entries with one key, in all replicas of the group, one runs at a time.
`give_up` says what to tell those who wait when an entry goes to the dead letters; committed together with that.
`accept` is asked before the key's lock is taken: what it refuses is acknowledged without effect and counted, so that
nobody can hold the lock of a thing that is not theirs.
Key and give-up have to be said for each type, if only as None, so that none is forgotten. Types that are not in the
table are acknowledged unread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import msgspec

from events.bus import NOTHING, Delivery, Outcome
from events.messages import Failure

M = TypeVar("M", bound=msgspec.Struct)

Handler = Callable[[Delivery[M]], Awaitable[Outcome | None]]
KeyOf = Callable[[Delivery[M]], str | None]
Accept = Callable[[Delivery[M]], Awaitable[bool]]
GiveUp = Callable[[Delivery[M], Failure], Outcome]


@dataclass(frozen=True, slots=True)
class Registration(Generic[M]):
    """The handler of one message type, its single-flight key and its give-up."""

    handler: Handler[M]
    key: KeyOf[M] | None
    give_up: GiveUp[M] | None
    accept: Accept[M] | None = None

    def key_of(self, delivery: Delivery[M]) -> str | None:
        """The single-flight key of an entry; None: it waits for no other."""
        return None if self.key is None else self.key(delivery)

    def given_up(self, delivery: Delivery[M], failure: Failure) -> Outcome:
        """What is committed together with the dead letter."""
        return NOTHING if self.give_up is None else self.give_up(delivery, failure)


class Handlers:
    """Registrations by type. `on` returns the table itself, so that one expression builds it."""

    def __init__(self) -> None:
        self._registered: dict[type[Any], Registration[Any]] = {}

    def on(
        self,
        kind: type[M],
        handler: Handler[M],
        *,
        key: KeyOf[M] | None,
        give_up: GiveUp[M] | None,
        accept: Accept[M] | None = None,
    ) -> Handlers:
        """Register the handler of every message of `kind`. Raises ValueError for a type that has a handler."""
        if kind in self._registered:
            raise ValueError(f"{kind.__name__} has a handler already")
        self._registered[kind] = Registration(handler, key, give_up, accept)
        return self

    def find(self, kind: type[M]) -> Registration[M] | None:
        """The registration of a type; None if it has no handler here."""
        return self._registered.get(kind)

    def wrapped(self, wrap: Callable[[Handler[Any]], Handler[Any]]) -> Handlers:
        """A copy of the table with every handler wrapped."""
        table = Handlers()
        for kind, one in self._registered.items():
            table._registered[kind] = replace(one, handler=wrap(one.handler))
        return table

    def __iter__(self) -> Iterator[type[Any]]:
        return iter(self._registered)

    def __len__(self) -> int:
        return len(self._registered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What one worker listens to, as which group, and how.

    `streams` is asked again now and then, so that a list that grows (one outbox per range) is followed.
    `attempts` bounds counted failures, `crashes` how often a worker may vanish with the entry; waiting for something
    that is unavailable is never counted, and backs off up to `unavailable_limit_seconds`. Entries that every group of a
    stream has acknowledged are dropped once they are older than `keep_seconds`. A worker that has nothing to do looks
    every `idle_seconds` for what no new entry announces.
    """

    group: str
    streams: Callable[[], Iterable[str]]
    handlers: Handlers
    slots: int = 8
    lease_seconds: float = 30.0
    attempts: int = 5
    crashes: int = 5
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 120.0
    unavailable_limit_seconds: float = 15.0
    dead_stream: str
    progress_stream: str | None = None
    keep_seconds: float = 7 * 86400.0
    idle_seconds: float = 2.0
