"""Presence of a host: its heartbeat and record, what its engine holds, and answers to questions about that.

Consumes `host.look_requested.v1` from the host's inbox (group `host-look`, apart from pushes, which take long). What
the engine holds is compared with the records (`services.core.hosts.held_images`) now and then; what an announcement
told is there at once. Where the disk of the engine's data is nearly full, an alarm is published, and the copies that a
rule allows to go are freed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from events.bus import NOTHING, BusClient, BusError, Delivery, IndexWrite, Outcome, RecordConflict
from events.messages import HostLookRequested, ReclaimRequested
from events.records import ANY
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from services.core.hosts.held_images import NEVER, HeldImage, HeldImages, HeldKeys
from services.core.hosts.hosts import BEAT_SECONDS, GONE_SECONDS, HostKeys, HostRecord
from services.core.hosts.looks import KEPT_SECONDS, LookAnswer
from services.core.images.image import EngineImage, EngineInfo
from services.core.images.references import Reference
from services.core.store.pressure import host_disk_key
from services.errors import BadReference, CyroidError
from services.ports import Engine
from services.registry_pusher.host_look import HostLook
from services.runtime.disk_watch import DiskWatch
from services.runtime.host_identity import HostIdentity
from services.runtime.telemetry import get_logger

GROUP = "host-look"
#: How often the engine's images are listed, and how long that may take.
INVENTORY_SECONDS = 30.0
#: How often the record is written where nothing but the time changes.
RECORD_SECONDS = 60.0
_ANSWER_SECONDS = 120.0
_INFO_SECONDS = 10.0


class HostPresence:
    """For one host. `space` gives what is free on the disk of the engine's data, and all there is; None where that is
    not known. With less than `free_percent` free the disk is low; 0: never.
    """

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        identity: HostIdentity,
        engine: Engine,
        look: HostLook,
        machine: str,
        clock: Callable[[], datetime],
        tar_url: str = "",
        space: Callable[[], tuple[int, int] | None] = lambda: None,
        free_percent: float = 0.0,
        source: str = "registry-pusher",
        lease_seconds: float = 30.0,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._identity = identity
        self._engine = engine
        self._look = look
        self._machine = machine
        self._clock = clock
        self._tar_url = tar_url
        self._space = space
        self._free_percent = free_percent
        self._source = source
        self._lease_seconds = lease_seconds
        self._keys, self._held = HostKeys(streams.prefix), HeldKeys(streams.prefix)
        self._images: Sequence[EngineImage] = ()
        self._compared: dict[str, str] = {}
        self._recorded: HostRecord | None = None
        self._log = get_logger(role="registry-pusher")

    def subscription(self) -> Subscription:
        return Subscription(
            group=GROUP,
            streams=self._inbox,
            handlers=Handlers().on(HostLookRequested, self._looked, key=None, give_up=None),
            slots=4,
            lease_seconds=self._lease_seconds,
            dead_stream=self._streams.dead,
        )

    def _inbox(self) -> tuple[str, ...]:
        known = self._identity.known
        return () if known is None else (self._streams.host_inbox(known),)

    async def run(self) -> None:
        """Until cancelled: heartbeats and inventories; both are skipped while Redis or the engine is unavailable."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._beat_forever())
            tasks.create_task(self._compare_forever())
            tasks.create_task(self._watch_disk())

    async def _looked(self, delivery: Delivery[HostLookRequested]) -> Outcome:
        asked = delivery.message
        host = await self._identity.get()
        reference = str(Reference.parse(asked.reference))
        found, image, away = await self._look.engine_image(reference, asked.image_id, asked.diff_ids)
        held = HeldImage.of(image, image_id=found.image_id) if found is not None and image is not None else None
        answer = LookAnswer(found=held, away=away or "")
        await self._bus.beat(self._streams.host_look(host, asked.look_id), answer.encode(), KEPT_SECONDS)
        return NOTHING

    # ---- heartbeat ----

    async def _beat_forever(self) -> None:
        while True:
            with suppress(BusError, CyroidError, OSError):
                await self._beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _beat(self) -> None:
        """One heartbeat; the record is written when it says something new, and once a minute."""
        host, now = await self._identity.get(), self._clock()
        key, recorded = self._keys.record(host), self._recorded
        if recorded is None:
            recorded = (await key.load(self._bus)).value or HostRecord(
                host=host, machine=self._machine, since=now, seen_at=NEVER
            )
        said = await self._said(recorded, now)
        await self._bus.beat(self._streams.host_alive(host), said.encode(), GONE_SECONDS)
        if (now - recorded.seen_at).total_seconds() >= RECORD_SECONDS or said.facts() != recorded.facts():
            index = IndexWrite(self._keys.all, host, said.since.timestamp())
            await self._bus.commit(Outcome(records=(key.write(said, expected=ANY),), index=(index,)))
            self._recorded = said

    async def _said(self, before: HostRecord, now: datetime) -> HostRecord:
        """The record as it is now; of an engine that does not answer, with what was known of it."""
        info, error = await self._info()
        space = self._space()
        said = replace(
            before,
            seen_at=now,
            free_bytes=space[0] if space is not None else None,
            images=len(self._images),
            images_bytes=sum(image.size_bytes for image in self._images),
            tar_url=self._tar_url,
            error=error,
        )
        if info is None:
            return said
        return replace(
            said,
            machine=info.name or self._machine,
            engine_id=info.engine_id,
            engine_version=info.version,
            store=info.store,
            platform=info.platform,
        )

    async def _info(self) -> tuple[EngineInfo | None, str]:
        try:
            async with asyncio.timeout(_INFO_SECONDS):
                return await self._engine.info(), ""
        except TimeoutError:
            return None, f"the engine did not answer within {_INFO_SECONDS:.0f} s"
        except CyroidError as problem:
            return None, str(problem)

    # ---- its disk ----

    async def _watch_disk(self) -> None:
        """Until cancelled, once this host is known by a name."""
        while self._free_percent and self._space() is not None:
            with suppress(CyroidError):
                await self.disk_watch(await self._identity.get()).run()
            await asyncio.sleep(BEAT_SECONDS)

    def disk_watch(self, host: str) -> DiskWatch:
        """The watch of the disk that this host's engine has its data on."""
        return DiskWatch(
            bus=self._bus,
            streams=self._streams,
            source=self._source,
            key=host_disk_key(self._streams.prefix, host),
            space=self._disk_space,
            limit_percent=self._free_percent,
            room=(ReclaimRequested(patterns=("*",), why="pressure", host=host),),
            clock=lambda: self._clock().timestamp(),
            host=host,
        )

    def _disk_space(self) -> tuple[int, int]:
        space = self._space()
        if space is None:
            raise OSError("the disk of the engine's data cannot be read now")
        return space

    # ---- what the engine holds ----

    async def _compare_forever(self) -> None:
        while True:
            with suppress(BusError, CyroidError, OSError, TimeoutError):
                await self._compare()
            await asyncio.sleep(INVENTORY_SECONDS)

    async def _compare(self) -> None:
        """Bring the records of this host to what its engine has. Raises EngineUnavailable, BusError, TimeoutError."""
        host = await self._identity.get()
        async with asyncio.timeout(_ANSWER_SECONDS):
            images = await self._engine.images()
        found = {name: image for image in images for name in image.references}
        gone = set(await self._bus.members(self._held.of_host(host))) - found.keys()
        changed = {name for name, image in found.items() if self._compared.get(name) != image.local_id}
        for name in sorted(gone | changed):
            with suppress(RecordConflict, BadReference):  # it is announced just now; or a name that no image can have
                await self._note(host, str(Reference.parse(name)))
        self._images = images
        self._compared = {name: image.local_id for name, image in found.items()}

    async def _note(self, host: str, reference: str) -> None:
        """The engine is asked after the record was read: what is announced in between is a conflict."""
        stored = await self._held.images(reference).load(self._bus)
        image = await self._engine.inspect(reference)
        before = stored.value or HeldImages(reference=reference)
        after = before.found(host, HeldImage.of(image)) if image is not None else before.dropped(host)
        if after != before or image is None:
            await self._bus.commit(self._held.written(stored, after, host, self._clock()))
