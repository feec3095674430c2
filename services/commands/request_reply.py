"""Request-reply over the bus: publish a command to the collector or the registry-pusher, and wait for its reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from events.bus import BusClient
from events.envelope import Envelope
from events.messages import (
    AdoptRequested,
    CollectRequested,
    DeletionPlanned,
    Failure,
    FetchRequested,
    ImageDeleted,
    ImageDeleteRefused,
    ImageDeleteRequested,
    ImageFetched,
    ImagesAdopted,
    ImagesReclaimed,
    Message,
    ReclaimRequested,
    RegistryCollected,
    RegistryRestored,
    RestoreRequested,
    RetentionPlanned,
    RetentionRequested,
)
from events.streams import Streams
from services.commands.host_choice import check_host
from services.errors import BadInput
from services.queries.progress import recently

StoreCommand = (
    CollectRequested
    | ImageDeleteRequested
    | RestoreRequested
    | RetentionRequested
    | AdoptRequested
    | ReclaimRequested
    | FetchRequested
)
StoreAnswer = (
    RegistryCollected
    | DeletionPlanned
    | ImageDeleted
    | ImageDeleteRefused
    | RegistryRestored
    | RetentionPlanned
    | ImagesAdopted
    | ImagesReclaimed
    | ImageFetched
)
#: Answers that say with `error` that the command is refused.
RefusableAnswer = (
    RegistryCollected | RegistryRestored | RetentionPlanned | ImagesAdopted | ImagesReclaimed | ImageFetched
)
A = TypeVar("A", bound=StoreAnswer)
R = TypeVar("R", bound=RefusableAnswer)
#: How long a caller that cannot wait for ever waits for a reply.
ANSWER_SECONDS = 30.0


async def answer(
    bus: BusClient, streams: Streams, command: StoreCommand, *kinds: type[A], source: str, actor: str = ""
) -> A:
    """Publish a command and wait for its answer; end the waiting by cancelling. Raises BusError.

    Raises NotFound for a command to a host that is not known, EngineUnavailable for one that is away.
    """
    return await _answer(bus, streams, await _publish(bus, streams, command, source, actor), kinds)


async def _publish(bus: BusClient, streams: Streams, command: StoreCommand, source: str, actor: str) -> Envelope:
    if isinstance(command, AdoptRequested | ReclaimRequested | FetchRequested) and command.host is not None:
        await check_host(bus, streams, command.host)
    subject = command.reference if isinstance(command, ImageDeleteRequested | FetchRequested) else "registry"
    asked = Envelope(message=command, source=source, subject=subject, actor=actor)
    await bus.publish(streams.images, asked)
    return asked


async def _answer(bus: BusClient, streams: Streams, asked: Envelope, kinds: tuple[type[A], ...]) -> A:
    async with aclosing(_answers(bus, streams, asked)) as answers:
        async for message in answers:
            if isinstance(message, kinds):
                return message
    raise RuntimeError("a tail that follows does not end")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReplyClient:
    """Request-reply client of the collector and the registry-pusher.

    A request is carried out even when nobody waits for its reply any more.

    within_seconds  how long `ask` waits for a reply
    """

    bus: BusClient
    streams: Streams
    source: str
    actor: str = ""
    within_seconds: float = ANSWER_SECONDS

    async def ask(self, command: StoreCommand, *kinds: type[A]) -> A | None:
        """The answer, None where there is none yet; the command is published in any case. Raises BusError."""
        asked = await _publish(self.bus, self.streams, command, self.source, self.actor)
        try:
            async with asyncio.timeout(self.within_seconds):
                return await _answer(self.bus, self.streams, asked, kinds)
        except TimeoutError:
            return None

    async def accepted(self, command: StoreCommand, kind: type[R]) -> R | None:
        """The answer, None where there is none yet. Raises BadInput for a command that is refused, BusError."""
        said = await self.ask(command, kind)
        if said is not None and said.error is not None:
            raise refusal(said.error)
        return said


def refusal(failure: Failure) -> BadInput:
    """Why a command was refused, as an error that HTTP and the command line tell by its code."""
    return BadInput(failure.message, code=failure.code)


async def _answers(bus: BusClient, streams: Streams, asked: Envelope) -> AsyncGenerator[Message, None]:
    """The answers to one command."""
    async with aclosing(bus.tail((streams.images,), after=recently())) as tail:
        async for entry in tail:
            if entry.envelope is not None and entry.envelope.causation_id == asked.id:
                yield entry.envelope.message
