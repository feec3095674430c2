"""The role `agent`: brings images to one range's engine and reports the result.

Consumes the range's inbox (groups `agent` and `agent-cancel`) and emits to its outbox:

    image.pull_requested   inspect → present or retagged, else pull by digest → image.ready
                           the pull cannot be done, or nothing to pull from → image.tar_requested
    image.load_offered     inspect, else fetch the archive and load it → image.ready
                           the offer is spent, or the archive broke off → image.tar_requested
    image.save_requested   engine's archive → the URL of the request: the host's side has lost the image
    transfer.cancelled     ends the engine's work for it → image.failed with code `cancelled`
    (at start, and when the engine is another one) → agent.started
    (now and then, if its images are not those told last) → agent.images_changed
    (a mounted layer is not used any more)                → layers.released
    (no way leads on)      → image.failed

Cancelling has a group of its own, so that it is handled while all slots of the other are pulling; a record remembers it
for a transfer that is taken up again by another run of the agent. An entry that was being handled when the agent died
is handled again from the start: looking first makes that cheap, and an offer that was used by then asks for a new one.
The heartbeat is sent only while the engine answers: an agent without its engine can do nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime

import msgspec

from events.bus import NOTHING, BusClient, BusError, Delivery, Outcome, Post, RecordWrite
from events.envelope import Envelope
from events.messages import (
    PROXY_LIMIT,
    AgentStarted,
    Failure,
    ImageFailed,
    ImageReady,
    ImagesChanged,
    LayersReleased,
    LoadOffered,
    PresentImage,
    PullRequested,
    SaveRequested,
    TarRequested,
    TransferCancelled,
)
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from services.agent.cancellation import Cancellation, Cancelled
from services.agent.heartbeat_writer import HeartbeatInterval, HeartbeatWriter
from services.agent.image_sending import ImageSending
from services.agent.layer_release import LayerRelease
from services.agent.mounted_layers import unreadable
from services.agent.pull import Patience
from services.agent.transfers import Answer, Request, Transfers
from services.core.images.image import EngineInfo
from services.core.images.read_model import present
from services.core.ranges.abilities import abilities
from services.errors import CyroidError, NoSpace, Stalled, TransferFailed, WrongContent
from services.ports import Engine, LayerPlacer
from services.runtime.telemetry import about, get_logger

#: A cancelled transfer may be asked for again by a queue that was long; later than this it is not.
CANCELLED_SECONDS = 86400.0
MISSED_BEATS = 3
#: A new entry wakes an agent, which sets no timers.
IDLE_SECONDS = 6.0
#: What this agent tried often enough, and the deployer may try again: the same way, or another.
_HEALED_BY_ANOTHER_TRY = frozenset(error.code for error in (NoSpace, Stalled, TransferFailed, WrongContent))
#: Transfers that ended well, of which a late copy is known.
_ANSWERED_LIMIT = 1000


class Agent:
    """The agent of one range. One per range runs at a time; two on one engine do each other no harm."""

    name = "agent"

    def __init__(
        self,
        *,
        range_id: str,
        engine: Engine,
        bus: BusClient,
        streams: Streams,
        slots: int = 8,
        lease_seconds: float = 30.0,
        patience: Patience | None = None,
        pulse: HeartbeatInterval | None = None,
        placer: LayerPlacer | None = None,
        host: str = "",
    ) -> None:
        self._range_id, self._host = range_id, host
        self._engine, self._bus, self._streams = engine, bus, streams
        self._slots, self._lease = slots, lease_seconds
        self._pulse = pulse or HeartbeatInterval()
        self._source = f"agent@{range_id}"
        lasts = MISSED_BEATS * self._pulse.beat_seconds + self._pulse.answer_seconds
        self._heartbeat = HeartbeatWriter(bus, streams.alive(range_id), range_id=range_id, lasts_seconds=lasts)
        self._told: tuple[tuple[PresentImage, ...], tuple[str, ...]] | None = None
        self._cancellation, self._placer = Cancellation(), placer
        self._sending = ImageSending(engine, range_id)
        self._transfers = Transfers(engine=engine, range_id=range_id, patience=patience or Patience(), placer=placer)
        self._release = (
            LayerRelease(placer, range_id=range_id, look_seconds=self._pulse.inspect_seconds, publish=self._publish)
            if placer is not None
            else None
        )
        #: Transfer that ended well → the entry that did it.
        self._answered: dict[str, str] = {}
        self._log = get_logger(role="agent", range=range_id)

    def subscriptions(self) -> Sequence[Subscription]:
        transfers = Subscription(
            group="agent",
            streams=lambda: [self._streams.inbox(self._range_id)],
            handlers=Handlers()
            .on(PullRequested, self._on_request, key=_content, give_up=self._give_up)
            .on(LoadOffered, self._on_request, key=_content, give_up=self._give_up)
            .on(SaveRequested, self._sending.requested, key=lambda _: "save", give_up=None),
            slots=self._slots,
            lease_seconds=self._lease,
            idle_seconds=IDLE_SECONDS,
            attempts=8,
            backoff_limit_seconds=30.0,
            dead_stream=self._streams.range_dead(self._range_id),
            progress_stream=self._streams.range_progress(self._range_id),
        )
        cancels = Subscription(
            group="agent-cancel",
            streams=lambda: [self._streams.inbox(self._range_id)],
            handlers=Handlers().on(TransferCancelled, self._on_cancel, key=None, give_up=None),
            slots=4,
            lease_seconds=self._lease,
            idle_seconds=IDLE_SECONDS,
            dead_stream=self._streams.range_dead(self._range_id),
        )
        return (transfers, cancels)

    # ---- transfers ----

    async def _on_request(self, delivery: Delivery[Request]) -> Outcome:
        request = delivery.message
        with about(delivery.envelope):
            if self._answered.get(request.transfer_id, delivery.entry_id) != delivery.entry_id:
                # A late copy: newer content may have the name by now, which this one would take away again.
                self._log.info("transfer repeated", image=request.reference, transfer=request.transfer_id)
                return NOTHING
            answer = await self._handle(request, delivery)
        if isinstance(answer, ImageReady):
            self._answered[request.transfer_id] = delivery.entry_id
            while len(self._answered) > _ANSWERED_LIMIT:
                del self._answered[next(iter(self._answered))]
        return Outcome(posts=(self._post(delivery.envelope, answer, request.reference),))

    async def _handle(self, request: Request, delivery: Delivery[Request]) -> Answer:
        try:
            async with self._cancellation.scope(request.transfer_id):
                record = await self._bus.load(self._cancelled_key(request.transfer_id))
                if record is not None:
                    await self._transfers.declined(request)
                    raise Cancelled(f"transfer {request.transfer_id} was cancelled")
                return await self._transfers.run(request, delivery.report)
        except Cancelled as cancelled:
            self._log.info("cancelled", image=request.reference, transfer=request.transfer_id)
            return ImageFailed(transfer_id=request.transfer_id, error=cancelled.failure())
        finally:
            if self._release is not None:
                self._release.hint()

    async def _on_cancel(self, delivery: Delivery[TransferCancelled]) -> Outcome:
        message = delivery.message
        with about(delivery.envelope):
            running = self._cancellation.cancel(message.transfer_id)
            self._log.info("cancel", transfer=message.transfer_id, running=running, why=message.reason)
        key = self._cancelled_key(message.transfer_id)
        return Outcome(records=(RecordWrite(key=key, value=b"1", expires_seconds=CANCELLED_SECONDS),))

    def _cancelled_key(self, transfer_id: str) -> str:
        return self._streams.cancelled(self._range_id, transfer_id)

    def _give_up(self, delivery: Delivery[Request], failure: Failure) -> Outcome:
        request = delivery.message
        error = msgspec.structs.replace(failure, retryable=failure.code in _HEALED_BY_ANOTHER_TRY)
        failed = ImageFailed(transfer_id=request.transfer_id, error=error)
        return Outcome(posts=(self._post(delivery.envelope, failed, request.reference),))

    def _post(self, cause: Envelope, message: ImageReady | ImageFailed | TarRequested, subject: str) -> Post:
        envelope = cause.causes(message, source=self._source, subject=subject)
        return Post(self._streams.outbox(self._range_id), envelope)

    # ---- the heart ----

    async def run(self) -> None:
        """Beat while the engine answers, and inspect it. Inspection may take long, and the heartbeat must not wait."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._live())
            tasks.create_task(self._watch_images())
            if self._release is not None:
                tasks.create_task(self._release.run())

    async def _live(self) -> None:
        """Send heartbeats while the engine answers; announce the engine when it is new, another one, or back."""
        announced: EngineInfo | None = None
        identified, answered = float("-inf"), asyncio.get_running_loop().time()
        while True:
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._pulse.answer_seconds):
                    async with self._using():  # or it may be down for a moment, to take layers
                        if announced is None or now - identified > self._pulse.identify_seconds:
                            announced, identified = await self._identify(announced), now
                        else:
                            await self._engine.ping()
                    answered = now
                    if await self._heartbeat.beat(announced):
                        await self._announce(announced)
                    await self._cancel_requested()
            except (CyroidError, TimeoutError) as problem:
                if announced is not None or identified == float("-inf"):
                    self._log.warning("the engine does not answer", why=str(problem) or "too slow")
                announced, identified = None, now
            except BusError as problem:
                self._log.warning("Redis does not answer", why=str(problem))
            await asyncio.sleep(self._pulse.pause_seconds(None if announced else now - answered))

    def _using(self) -> AbstractAsyncContextManager[None]:
        return self._placer.using() if self._placer is not None else nullcontext()

    async def _cancel_requested(self) -> None:
        """Whether another agent that drives the same range was told to stop the transfer."""
        running = self._cancellation.running
        if not running:
            return
        records = await self._bus.load_many([self._cancelled_key(transfer_id) for transfer_id in running])
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
            host=self._host or None,
            range_id=self._range_id,
            engine_id=info.engine_id,
            engine_version=info.version,
            store=info.store,
            platform=info.platform,
            abilities=abilities(info),
            images=images,
            mounts_layers=self._placer is not None and await self._placer.available(),
            proxy=info.proxy[:PROXY_LIMIT],
            no_proxy=info.no_proxy[:PROXY_LIMIT],
            gives_images=True,
            unreadable_layers=await unreadable(self._placer),
        )
        await self._tell(message, looked_at)
        self._log.info("announced", engine=info.version, store=info.store, images=len(images))

    async def _watch_images(self) -> None:
        """Publish changes that somebody else made to the engine's images, once the engine was announced."""
        while True:
            await asyncio.sleep(self._pulse.inspect_seconds)
            try:
                async with asyncio.timeout(self._pulse.inspect_seconds):
                    looked_at = datetime.now(UTC)
                    images = present(await self._engine.images())
                    layers = await unreadable(self._placer)
                    if self._told is not None and (images, layers) != self._told:
                        changed = ImagesChanged(range_id=self._range_id, images=images, unreadable_layers=layers)
                        await self._tell(changed, looked_at)
            except (CyroidError, TimeoutError, BusError) as problem:
                self._log.info("could not inspect the engine", why=str(problem) or "too slow")

    async def _publish(self, message: LayersReleased) -> None:
        envelope = Envelope(message=message, source=self._source, subject=self._range_id)
        await self._bus.publish(self._streams.outbox(self._range_id), envelope)

    async def _tell(self, message: AgentStarted | ImagesChanged, looked_at: datetime) -> None:
        """A list is as old as its inspection: what came to the engine while it was made is newer."""
        envelope = Envelope(message=message, source=self._source, subject=self._range_id, time=looked_at)
        await self._bus.publish(self._streams.outbox(self._range_id), envelope)
        self._told = (message.images, message.unreadable_layers)


def _content(delivery: Delivery[Request]) -> str:
    """Two transfers of one content come one after the other: the second finds it there, neither disturbs the other."""
    return delivery.message.image_id
