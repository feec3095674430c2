"""Push of an image from the engine of a range, where neither the registry nor the host's engine has its content.

Consumes `image.push_failed.v1` (group `agent-pool`). A push that failed because the host's engine has no such image, of
an image that the registry should have by the read model, is tried on the engines that the agent pool drives: those that
can be reached from the host's side. A scrub that set damaged content aside leads here, after the host's engine.

A range is not trusted. What it gives counts only if it is the content that the registry had under the name: the image
id has to be the recorded one, each layer is hashed on the way, and no more bytes are read than the image can have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from events.bus import NOTHING, BusClient, Delivery, Outcome
from events.messages import ImagePushed, ImagePushFailed
from events.records import load_values
from events.streams import Streams
from events.subscription import Handlers, Subscription
from services.core.images.read_model import ReadModelKeys, RegistryEntry
from services.core.ranges.engine_networks import engine_refusal
from services.core.ranges.ranges import EnginePlace, RangeKeys
from services.errors import CyroidError, NotFound
from services.ports import Engine
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.outcome import pushed_outcome
from services.runtime.telemetry import get_logger

GROUP = "agent-pool"
#: Ranges that are asked for one image, and how long each may take.
RANGES_LIMIT = 5
WITHIN_SECONDS = 3600.0
#: Layers may lie in the registry compressed: an image's own bytes, at most, for each byte there. And what an archive
#: has beside layers.
_UNPACKED_RATIO = 4
_SPARE_BYTES = 64 * 1024**2

#: A push whose only source is an engine's `docker save`, of so many bytes at most.
PushFrom = Callable[[Engine, int], ImagePush]


class RangePush:
    """The subscription of the agent pool. `open_engine` opens a range's engine by its address."""

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        open_engine: Callable[[str], AbstractAsyncContextManager[Engine]],
        push_from: PushFrom,
        encodings: LayerEncodings,
        engine_networks: str = "",
        lease_seconds: float = 30.0,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._open_engine = open_engine
        self._push_from = push_from
        self._encodings = encodings
        self._engine_networks = engine_networks
        self._lease_seconds = lease_seconds
        self._log = get_logger(role="agent-pool")

    def subscription(self) -> Subscription:
        return Subscription(
            group=GROUP,
            streams=lambda: (self._streams.images,),
            handlers=Handlers().on(
                ImagePushFailed, self._push_failed, key=lambda one: one.message.reference, give_up=None
            ),
            slots=1,
            lease_seconds=self._lease_seconds,
            dead_stream=self._streams.dead,
        )

    async def _push_failed(self, delivery: Delivery[ImagePushFailed]) -> Outcome:
        failed = delivery.message
        if failed.error.code != NotFound.code:
            return NOTHING
        entry = (await ReadModelKeys(self._streams.prefix).image(failed.reference).load(self._bus)).value
        if entry is None or entry.kind != "image" or failed.image_id not in (None, entry.image_id):
            return NOTHING
        async for place in self._places(entry):
            pushed = await self._push(entry, place)
            if pushed is not None:
                said = delivery.envelope.causes(pushed, source=self._source, subject=pushed.reference)
                return pushed_outcome(pushed, said, streams=self._streams, encodings=self._encodings)
        holders = await self._bus.members(ReadModelKeys(self._streams.prefix).holders(entry.image_id))
        if holders:
            advice = "docker save in one of them, then images import on the host"
            self._log.warning(
                "no range that can be reached gives it", image=failed.reference, in_ranges=holders[:5], advice=advice
            )
        return NOTHING

    async def _places(self, entry: RegistryEntry) -> AsyncIterator[EnginePlace]:
        """Engines that can be reached and that have the image, as far as is known; a containerd one cannot tell."""
        keys, asked = RangeKeys(self._streams.prefix), 0
        for place in await load_values(self._bus, [keys.place(one) for one in await self._bus.members(keys.places)]):
            inventory = (await ReadModelKeys(self._streams.prefix).holdings(place.range_id).load(self._bus)).value
            if inventory is None or entry.reference not in inventory.images:
                continue
            if inventory.images[entry.reference] not in (None, entry.image_id):
                continue
            if asked < RANGES_LIMIT and engine_refusal(place.engine_url, self._engine_networks) is None:
                asked += 1
                yield place

    async def _push(self, entry: RegistryEntry, place: EnginePlace) -> ImagePushed | None:
        limit_bytes = _UNPACKED_RATIO * entry.size_bytes + _SPARE_BYTES
        try:
            async with asyncio.timeout(WITHIN_SECONDS), self._open_engine(place.engine_url) as engine:
                pushed = await self._push_from(engine, limit_bytes).push(entry.reference, image_id=entry.image_id)
        except (CyroidError, OSError, TimeoutError) as problem:
            self._log.warning(
                "a range does not give an image", image=entry.reference, range=place.range_id, why=str(problem)
            )
            return None
        self._log.info("pushed from a range", image=entry.reference, range=place.range_id, sent=pushed.sent_bytes)
        return pushed
