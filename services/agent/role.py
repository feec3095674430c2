"""The role `agent`: brings images to one range's engine and says what became of it.

Consumes the range's inbox (groups `agent` and `agent-cancel`) and emits to its outbox:

    image.pull_requested   look → present or retagged, else pull by digest → image.ready
                           the pull cannot be done, or nothing to pull from → image.tar_requested
    image.load_offered     look, else fetch the archive and load it → image.ready
                           the offer is spent, or the archive broke off → image.tar_requested
    transfer.cancelled     ends the engine's work for it → image.failed with code `cancelled`
    (at start, and when the engine is another one) → agent.started
    (now and then, if its images are not those told last) → agent.images_changed
    (no way leads on)      → image.failed

Cancelling has a group of its own, so that it is heard while all slots of the other are pulling; a record remembers it
for a transfer that is taken up again by another run of the agent. An entry that was being handled when the agent died
is handled again from the start: looking first makes that cheap, and an offer that was used by then asks for a new one.
The heart beats only while the engine answers: an agent without its engine can do nothing for anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from events.bus import BusError, Delivery, Outcome, Post, RecordWrite, Speaker, Subscription
from events.envelope import Envelope, new_id
from events.messages import (
    AgentStarted,
    Failure,
    ImageFailed,
    ImageReady,
    ImagesChanged,
    LoadOffered,
    PresentImage,
    PullRequested,
    TarRequested,
    TransferCancelled,
)
from events.streams import Streams
from events.task_group import TaskGroup
from services.agent.cancelling import Cancellation, Cancelled
from services.agent.pulling import Patience
from services.agent.transfers import Answer, Request, Transfers
from services.core.abilities import abilities
from services.core.holdings import present
from services.core.images import EngineInfo
from services.errors import CyroidError, NoSpace, Stalled, TransferFailed, WrongContent
from services.ports import Engine
from services.telemetry import about, get_logger

#: A cancelled transfer may be asked for again by a queue that was long; later than this it is not.
CANCELLED_SECONDS = 86400.0
MISSED_BEATS = 3
#: What this agent tried often enough, and the deployer may try again: the same way, or another.
_HEALED_BY_ANOTHER_TRY = frozenset(error.code for error in (NoSpace, Stalled, TransferFailed, WrongContent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """How often the heart beats, how long an engine may take to answer, how often its identity is asked for.

    Every `look_beats` beats the agent looks whether somebody else brought or removed images.
    """

    beat_seconds: float = 5.0
    answer_seconds: float = 10.0
    identify_seconds: float = 30.0
    look_beats: int = 12

    @property
    def look_seconds(self) -> float:
        return self.look_beats * self.beat_seconds


class Agent:
    """The agent of one range. One per range runs at a time; two do each other no harm."""

    def __init__(
        self,
        *,
        range_id: str,
        engine: Engine,
        speaker: Speaker,
        streams: Streams,
        slots: int = 8,
        lease_seconds: float = 30.0,
        patience: Patience | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._range_id = range_id
        self._engine = engine
        self._speaker = speaker
        self._streams = streams
        self._slots = slots
        self._lease = lease_seconds
        self._pulse = pulse or Pulse()
        self._source = f"agent@{range_id}"
        self._incarnation = new_id()
        self._told: tuple[PresentImage, ...] | None = None
        self._cancellation = Cancellation()
        self._transfers = Transfers(engine=engine, range_id=range_id, patience=patience or Patience())
        self._log = get_logger(role="agent", range=range_id)

    @property
    def name(self) -> str:
        return "agent"

    def subscriptions(self) -> Sequence[Subscription]:
        transfers = Subscription(
            group="agent",
            streams=lambda: [self._streams.inbox(self._range_id)],
            handlers={PullRequested: self._on_request, LoadOffered: self._on_request},
            key=_content,
            give_up=self._give_up,
            slots=self._slots,
            lease_seconds=self._lease,
            attempts=8,
            backoff_limit_seconds=30.0,
            dead_stream=self._streams.range_dead(self._range_id),
            progress_stream=self._streams.range_progress(self._range_id),
        )
        cancels = Subscription(
            group="agent-cancel",
            streams=lambda: [self._streams.inbox(self._range_id)],
            handlers={TransferCancelled: self._on_cancel},
            slots=4,
            lease_seconds=self._lease,
            dead_stream=self._streams.range_dead(self._range_id),
        )
        return (transfers, cancels)

    # ---- transfers ----

    async def _on_request(self, delivery: Delivery) -> Outcome:
        request = delivery.message
        assert isinstance(request, PullRequested | LoadOffered)
        with about(delivery.envelope):
            answer = await self._handle(request, delivery)
        return Outcome(posts=(self._post(delivery.envelope, answer, request.reference),))

    async def _handle(self, request: Request, delivery: Delivery) -> Answer:
        try:
            async with self._cancellation.scope(request.transfer_id):
                record = await self._speaker.load(self._cancelled_key(request.transfer_id))
                if record is not None:
                    raise Cancelled(f"transfer {request.transfer_id} was cancelled")
                return await self._transfers.run(request, delivery.report)
        except Cancelled as cancelled:
            self._log.info("cancelled", image=request.reference, transfer=request.transfer_id)
            return ImageFailed(transfer_id=request.transfer_id, error=cancelled.failure())

    async def _on_cancel(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, TransferCancelled)
        with about(delivery.envelope):
            running = self._cancellation.cancel(message.transfer_id)
            self._log.info("cancel", transfer=message.transfer_id, running=running, why=message.reason)
        key = self._cancelled_key(message.transfer_id)
        return Outcome(records=(RecordWrite(key=key, value=b"1", expires_seconds=CANCELLED_SECONDS),))

    def _cancelled_key(self, transfer_id: str) -> str:
        return self._streams.cancelled(self._range_id, transfer_id)

    def _give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        request = envelope.message
        if not isinstance(request, PullRequested | LoadOffered):
            return Outcome()
        error = msgspec.structs.replace(failure, retryable=failure.code in _HEALED_BY_ANOTHER_TRY)
        failed = ImageFailed(transfer_id=request.transfer_id, error=error)
        return Outcome(posts=(self._post(envelope, failed, request.reference),))

    def _post(self, cause: Envelope, message: ImageReady | ImageFailed | TarRequested, subject: str) -> Post:
        envelope = cause.causes(message, source=self._source, subject=subject)
        return Post(self._streams.outbox(self._range_id), envelope)

    # ---- the heart ----

    async def run(self) -> None:
        """Beat while the engine answers, and look what it has. Looking may take long, and the heart must not wait."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._live())
            tasks.create_task(self._watch_images())

    async def _live(self) -> None:
        """Beat while the engine answers; announce it when it is new, another one, or back."""
        announced: EngineInfo | None = None
        identified = float("-inf")
        while True:
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._pulse.answer_seconds):
                    if announced is None or now - identified > self._pulse.identify_seconds:
                        announced, identified = await self._identify(announced), now
                    else:
                        await self._engine.ping()
                    await self._beat(announced)
                    await self._hear_cancelled()
            except (CyroidError, TimeoutError) as problem:
                if announced is not None or identified == float("-inf"):
                    self._log.warning("the engine does not answer", why=str(problem) or "too slow")
                announced, identified = None, now
            except BusError as problem:
                self._log.warning("Redis does not answer", why=str(problem))
            await asyncio.sleep(self._pulse.beat_seconds)

    async def _hear_cancelled(self) -> None:
        """Where two agents drive one range, the word to stop may have reached the other one."""
        running = self._cancellation.running
        if not running:
            return
        records = await self._speaker.load_many([self._cancelled_key(transfer_id) for transfer_id in running])
        for transfer_id, record in zip(running, records, strict=True):
            if record is not None:
                self._cancellation.cancel(transfer_id)

    async def _identify(self, before: EngineInfo | None) -> EngineInfo:
        info = await self._engine.info()
        if before is None or (info.engine_id, info.version) != (before.engine_id, before.version):
            await self._announce(info)
        return info

    async def _announce(self, info: EngineInfo) -> None:
        looked_at = datetime.now(UTC)
        images = present(await self._engine.images())
        message = AgentStarted(
            range_id=self._range_id,
            engine_id=info.engine_id,
            engine_version=info.version,
            store=info.store,
            platform=info.platform,
            abilities=abilities(info),
            images=images,
        )
        await self._tell(message, looked_at)
        self._log.info("announced", engine=info.version, store=info.store, images=len(images))

    async def _watch_images(self) -> None:
        """What somebody else did to the engine's images is told too, once the engine was announced."""
        while True:
            await asyncio.sleep(self._pulse.look_seconds)
            try:
                async with asyncio.timeout(self._pulse.look_seconds):
                    looked_at = datetime.now(UTC)
                    images = present(await self._engine.images())
                    if self._told is not None and images != self._told:
                        await self._tell(ImagesChanged(range_id=self._range_id, images=images), looked_at)
            except (CyroidError, TimeoutError, BusError) as problem:
                self._log.info("could not look what the engine has", why=str(problem) or "too slow")

    async def _tell(self, message: AgentStarted | ImagesChanged, looked_at: datetime) -> None:
        """A list is as old as the look: what came to the engine while it was made is newer."""
        envelope = Envelope(message=message, source=self._source, subject=self._range_id, time=looked_at)
        await self._speaker.publish(self._streams.outbox(self._range_id), envelope)
        self._told = message.images

    async def _beat(self, info: EngineInfo) -> None:
        said = {
            "engine_id": info.engine_id,
            "incarnation": self._incarnation,
            "engine_version": info.version,
            "at": datetime.now(UTC),
        }
        lasts = MISSED_BEATS * self._pulse.beat_seconds + self._pulse.answer_seconds
        await self._speaker.beat(self._streams.alive(self._range_id), msgspec.json.encode(said), lasts)


def _content(envelope: Envelope) -> str | None:
    """Two transfers of one content come one after the other: the second finds it there, neither disturbs the other."""
    request = envelope.message
    return request.image_id if isinstance(request, PullRequested | LoadOffered) else None
