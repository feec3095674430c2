"""The role `layer-mounter`: shows ranges the layers of images they are to have, as folders, in place of sending them.

consumes  layers.mount_requested, layers.unmount_requested, layers.released (its host's inbox),
          layers.released, agent.started (the ranges' outboxes)
follows   image.pushed (in no group: `services.layer_mounter.preparation`)
emits     layers.mounted, layers.mount_failed, transfer.progress

The layer-mounters of all hosts share the outboxes: what a range gives back is passed on to the one of its host.

What is shown is kept on the host's disk by the `LayerMounts` port, so that all of it can be made again without Redis.
The blobs behind it are recorded for the collector, which keeps them, and what cannot be read for `verify`. Of the
images that a range should have, those that are shown are its seed: what its next engine starts with.
This role runs once per host.

**A range's outbox is hostile.** A range gives back its own folders only, and what it never gives back is let go when
its engine is another one, or when the range is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from events.bus import NOTHING, BusClient, BusError, Delivery, Outcome, Post
from events.messages import AgentStarted, LayersReleased, MountRequested, UnmountRequested
from events.records import UnreadableRecord, load_all
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from services.core.mounts.pins import MountKeys
from services.core.mounts.problems import MountProblem
from services.core.ranges.ranges import RangeKeys
from services.errors import LayersNotMounted
from services.layer_mounter.answers import UnpackProgress, mounted, not_mounted
from services.layer_mounter.preparation import Preparation
from services.ports import LayerMounts
from services.queries.ranges import FIND_SECONDS, RangeFinder
from services.runtime.heartbeat import BEAT_SECONDS, LASTS_SECONDS
from services.runtime.telemetry import get_logger


class LayerMounter:
    """The layer-mounter of one host. `mounts` are the host's; `host` names its inbox."""

    name = "layer-mounter"

    def __init__(
        self,
        *,
        bus: BusClient,
        mounts: LayerMounts,
        streams: Streams,
        host: str,
        source: str,
        lease_seconds: float = 30.0,
        check_seconds: float = 60.0,
        seed_seconds: float = 5.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._mounts = mounts
        self._streams = streams
        self._host = host
        self._source = source
        self._lease_seconds = lease_seconds
        self._check_seconds = check_seconds
        self._seed_seconds = seed_seconds
        self._keys = RangeKeys(streams.prefix)
        self._pins = MountKeys(streams.prefix)
        self._finder = RangeFinder(bus=bus, streams=streams, clock=clock)
        self._able = asyncio.Event()
        self._preparation = Preparation(bus=bus, mounts=mounts, stream=streams.images, able=self._able.wait)
        self._problems: list[MountProblem] = []
        self._log = get_logger(role=self.name, host=host)

    def subscriptions(self) -> Sequence[Subscription]:
        return (
            Subscription(
                group=self.name,
                streams=self._consumed,
                handlers=Handlers()
                .on(MountRequested, self._mount_requested, key=_transfer_of, give_up=None)
                .on(UnmountRequested, self._unmount_requested, key=_transfer_of, give_up=None)
                .on(LayersReleased, self._released, key=_range_of, give_up=None)
                .on(AgentStarted, self._agent_started, key=_range_of, give_up=None),
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
                progress_stream=self._streams.progress,
            ),
        )

    def _consumed(self) -> list[str]:
        return [self._streams.host_inbox(self._host), *map(self._streams.outbox, self._finder.found)]

    async def run(self) -> None:
        """Repair mounts at the start and periodically, send heartbeats, discover ranges, prepare."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._check())
            tasks.create_task(self._find())
            tasks.create_task(self._beat())
            tasks.create_task(self._seed())
            tasks.create_task(self._preparation.run())

    async def _find(self) -> None:
        while True:
            with suppress(BusError):  # Redis is unavailable: the next round
                await self._finder.find()
            await asyncio.sleep(FIND_SECONDS)

    async def _beat(self) -> None:
        """Send the heartbeat while layers can be mounted here."""
        await self._able.wait()
        while True:
            with suppress(BusError):
                if self._able.is_set():
                    await self._bus.beat(self._streams.mounter_alive(self._host), b"1", LASTS_SECONDS)
            await asyncio.sleep(BEAT_SECONDS)

    async def _check(self) -> None:
        while True:
            try:
                self._problems = await self._mounts.restore()
                for problem in self._problems:
                    self._log.error("not readable", range=problem.range_id, layer=problem.diff_id, why=problem.why)
                self._able.set()
                await self._forget_ranges()
                await self._forget_engines()
                await self._bus.commit(await self._pinned())
            except LayersNotMounted as problem:
                self._able.clear()
                self._log.error("no layers can be mounted", why=str(problem))
            except BusError as away:
                self._log.warning("ranges cannot be looked up", why=str(away))
            await asyncio.sleep(self._check_seconds)

    async def _seed(self) -> None:
        """Keep what each range's next engine starts with as the range's desired images are."""
        seen: dict[str, object] = {}
        while True:
            await asyncio.sleep(self._seed_seconds)
            try:
                shown = await self._mounts.shown()
                stored = await load_all(self._bus, [self._keys.wanted(range_id) for range_id in shown])
                for (range_id, record), found in zip(shown.items(), stored, strict=True):
                    state = (record, found.value)
                    if seen.get(range_id) != state:
                        await self._mounts.seed(range_id, tuple(found.value.images.values()) if found.value else ())
                        seen[range_id] = state
                seen = {range_id: state for range_id, state in seen.items() if range_id in shown}
            except (LayersNotMounted, BusError, UnreadableRecord) as problem:
                self._log.warning("ranges cannot be seeded", why=str(problem))

    async def _forget_ranges(self) -> None:
        """Hide what is shown to ranges that were forgotten (`cyroid-images ranges forget`)."""
        shown = await self._mounts.shown()
        if not shown:
            return
        known = {*await self._bus.members(self._keys.known_index), *await self._bus.members(self._keys.asked)}
        for range_id in shown.keys() - known:
            self._log.info("range forgotten", range=range_id, layers=len(shown[range_id].layers))
            await self._mounts.forget(range_id)

    async def _forget_engines(self) -> None:
        """Hide what an engine was shown that its range no longer has: a request for it may have come after the word
        of the next engine's start.
        """
        for range_id in await self._mounts.shown():
            await self._know_engine(range_id)

    async def _know_engine(self, range_id: str) -> None:
        """Hide what an earlier engine of a range was shown; what the present one was seeded with stays."""
        with suppress(UnreadableRecord):  # of a range that is not known, nothing is changed
            known = (await self._keys.known(range_id).load(self._bus)).value
            if known is not None:
                await self._mounts.engine_is(range_id, known.engine_id, known.images)

    # ---- handlers ----

    async def _mount_requested(self, delivery: Delivery[MountRequested]) -> Outcome:
        request = delivery.message
        started, unpacking = time.monotonic(), UnpackProgress(request, delivery.report)
        about = {"transfer": request.transfer_id, "range": request.range_id, "layers": len(request.layers)}
        try:
            await self._know_engine(request.range_id)
            async with unpacking.told():
                await self._mounts.show(
                    request.range_id,
                    request.layers,
                    grant=request.transfer_id,
                    engine_id=request.engine_id,
                    store=request.store,
                    read=unpacking.read,
                )
        except LayersNotMounted as problem:
            self._log.warning("not mounted", why=str(problem), **about)
            answer = not_mounted(request.transfer_id, request.range_id, problem)
        else:
            seconds = round(time.monotonic() - started, 4)
            self._log.info("mounted", seconds=seconds, **about)
            answer = mounted(request.transfer_id, request.range_id, seconds)
        envelope = delivery.envelope.causes(answer, source=self._source, subject=request.range_id)
        return await self._pinned(Post(self._streams.deployer, envelope))

    async def _unmount_requested(self, delivery: Delivery[UnmountRequested]) -> Outcome:
        request = delivery.message
        shown = (await self._mounts.shown()).get(request.range_id)
        if shown is not None:
            await self._mounts.release(request.range_id, dict.fromkeys(shown.layers, request.transfer_id))
        return await self._pinned()

    async def _released(self, delivery: Delivery[LayersReleased]) -> Outcome:
        message = delivery.message
        if not self._is_of(delivery, message.range_id):
            return NOTHING
        host = await self._host_of(message.range_id)
        if host != self._host:
            passed = delivery.envelope.causes(message, source=self._source, subject=message.range_id)
            return Outcome(posts=(Post(self._streams.host_inbox(host), passed),))
        await self._mounts.release(message.range_id, message.grants)
        self._log.info("released", range=message.range_id, layers=len(message.grants))
        return await self._pinned()

    async def _host_of(self, range_id: str) -> str:
        """The host that has the range; this one where nobody said it."""
        with suppress(UnreadableRecord):
            known = (await self._keys.known(range_id).load(self._bus)).value
            if known is not None and known.host:
                return known.host
        return self._host

    async def _agent_started(self, delivery: Delivery[AgentStarted]) -> Outcome:
        message = delivery.message
        if self._is_of(delivery, message.range_id):
            await self._mounts.engine_is(message.range_id, message.engine_id, message.images)
        return NOTHING

    async def _pinned(self, *posts: Post) -> Outcome:
        """What is shown now, as the collector is to know it, with `posts`."""
        shown = await self._mounts.shown()
        problems = [one for one in self._problems if one.range_id in shown]
        return self._pins.pinned(self._host, shown.values(), *posts, problems=problems)

    def _is_of(self, delivery: Delivery[LayersReleased | AgentStarted], range_id: str) -> bool:
        """Whether the message is about the range that published it; another host's layer-mounter has seen to that."""
        if self._streams.range_of(delivery.stream) == range_id or delivery.stream == self._streams.host_inbox(
            self._host
        ):
            return True
        self._log.warning("not of this range", stream=delivery.stream, range=range_id)
        return False


def _range_of(delivery: Delivery[LayersReleased | AgentStarted]) -> str:
    """What a range says comes one after the other."""
    return delivery.message.range_id


def _transfer_of(delivery: Delivery[MountRequested | UnmountRequested]) -> str:
    """One transfer's layers are hidden after they were shown. Others of the range do not wait for its unpacking."""
    return f"{delivery.message.range_id}/{delivery.message.transfer_id}"
