"""Distributed tracing of the streams: a span for each handled message, and one for each published message.

Off unless the standard variables of OpenTelemetry name a collector; nothing of OpenTelemetry is imported then. On,
`services.runtime.open_telemetry` makes the spans, and this module puts them where messages pass:

    publish, commit, finish, dead_letter   a producer span for each message, whose context goes out as `traceparent`
    a handler                              a consumer span, child of the `traceparent` that came with the message

A handler gets its message with the consumer span in place of that `traceparent`, so all that it publishes because of
this message is a child of it, in whatever task. Progress is lossy and has no spans.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from events.bus import BusUnavailable, Delivery, Outcome, Post
from events.envelope import Envelope
from events.lease import Bus, DeadLetterReason, Lease
from events.messages import TransferProgress
from services.runtime.telemetry import get_logger

log = get_logger(role="tracing")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Publication(Protocol):
    """One producer span, begun: `envelope` carries its context."""

    @property
    def envelope(self) -> Envelope: ...

    def end(self, problem: BaseException | None = None) -> None:
        """The message was published; with a `problem`, it is not known whether it was. One not ended is dropped."""


class Tracer(Protocol):
    """Makes spans."""

    def publication(self, stream: str, envelope: Envelope) -> Publication:
        """Begin the span of a message that is about to be published."""

    def handling(self, group: str, delivery: Delivery[Any]) -> AbstractContextManager[Delivery[Any]]:
        """The span of a handler's run, with the delivery as the handler is to get it."""

    async def close(self) -> None:
        """Send what is left, within a few seconds."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for spans: a collector is named, and nothing turns them off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


@asynccontextmanager
async def traced(bus: Bus, environment: Mapping[str, str], *, process: str) -> AsyncIterator[Bus]:
    """`bus`, with spans if the environment asks for them; leaving sends what is left. `process` is this one's name."""
    tracer = _tracer(process) if wanted(environment) else None
    if tracer is None:
        yield bus
        return
    try:
        yield cast(Bus, TracedBus(bus, tracer))
    finally:
        await tracer.close()


def _tracer(process: str) -> Tracer | None:
    try:
        from services.runtime.open_telemetry import SpanMaker
    except ModuleNotFoundError as problem:
        log.warning(
            "no spans are made: OpenTelemetry is not installed here",
            why=str(problem),
            hint="pip install 'cyroid-images[tracing]', or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        )
        return None
    try:
        return SpanMaker(process=process)
    except ValueError as problem:
        log.warning("no spans are made: a variable of OpenTelemetry is wrong", why=str(problem))
        return None


def tracer_of(bus: Bus) -> Tracer | None:
    """The tracer of a traced bus."""
    return bus.tracer if isinstance(bus, TracedBus) else None


def untraced(bus: Bus) -> Bus:
    """The bus itself, without spans."""
    return bus.bus if isinstance(bus, TracedBus) else bus


@dataclass(frozen=True, slots=True)
class TracedBus:
    """A bus that makes a producer span for each message. All else is the bus's own (`events.lease.Bus`)."""

    bus: Bus
    tracer: Tracer

    def __getattr__(self, name: str) -> Any:  # Any: of each method its own type, as the bus has it
        return getattr(self.bus, name)

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        outcome, begun = self._begun(Outcome(posts=tuple(Post(stream, envelope) for envelope in envelopes)))
        with _Ending(begun):
            await self.bus.publish(stream, *(post.envelope for post in outcome.posts))

    async def commit(self, outcome: Outcome) -> None:
        outcome, begun = self._begun(outcome)
        with _Ending(begun):
            await self.bus.commit(outcome)

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        outcome, begun = self._begun(outcome)
        with _Ending(begun) as ending:
            ending.published = await self.bus.finish(lease, outcome)
        return ending.published

    async def dead_letter(self, lease: Lease, letter: DeadLetterReason, outcome: Outcome) -> bool:
        outcome, begun = self._begun(outcome)
        with _Ending(begun) as ending:
            ending.published = await self.bus.dead_letter(lease, letter, outcome)
        return ending.published

    def _begun(self, outcome: Outcome) -> tuple[Outcome, list[Publication]]:
        """The outcome with the context of a new span in each message, and those spans."""
        begun: list[Publication] = []
        posts: list[Post] = []
        for post in outcome.posts:
            if post.keep is not None or isinstance(post.envelope.message, TransferProgress):
                posts.append(post)
                continue
            publication = self.tracer.publication(post.stream, post.envelope)
            begun.append(publication)
            posts.append(replace(post, envelope=publication.envelope))
        return (replace(outcome, posts=tuple(posts)) if begun else outcome), begun


class _Ending:
    """Ends producer spans as their commit ended: not at all where nothing was published (a conflict, a duplicate)."""

    def __init__(self, begun: list[Publication]) -> None:
        self._begun = begun
        self.published = True

    def __enter__(self) -> _Ending:
        return self

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        unknown = problem if isinstance(problem, BusUnavailable) else None
        if self.published and (problem is None or unknown is not None):
            for publication in self._begun:
                publication.end(unknown)
