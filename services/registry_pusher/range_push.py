"""Push of an image from the engine of a range, where neither the registry nor the host's engine has its content.

Consumes `image.push_failed.v1` (group `agent-pool`) and publishes `image.save_requested.v1` to ranges with an agent. A
push that failed because the host's engine has no such image, of an image that the registry should have by the read
model, is tried on engines of ranges: on those that the agent pool drives by `docker save`, on the others by an upload
of the same archive, which their agent is asked for (`range_uploads`). A scrub that set damaged content aside leads
here, after the host's engine.

A range is not trusted. What it gives counts only if it is the content that the registry had under the name: the image
id has to be the recorded one, each layer is hashed on the way, and no more bytes are read than the image can have, nor
for longer than a slow range needs for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

from events.bus import NOTHING, BusClient, Delivery, Outcome
from events.messages import ImagePushed, ImagePushFailed
from events.streams import Streams
from events.subscription import Handlers, Subscription
from services.core.images.image import EngineImage
from services.core.images.read_model import ReadModelKeys, RegistryEntry
from services.core.ranges.engine_networks import engine_refusal
from services.core.ranges.ranges import EnginePlace, RangeKeys
from services.errors import CyroidError, NotFound
from services.ports import Engine, LayerSource, Registry, SavedImages
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from services.registry_pusher.outcome import pushed_outcome
from services.registry_pusher.range_uploads import RangeImage, RangeUploads
from services.registry_pusher.recorded_config import RecordedConfig
from services.runtime.telemetry import get_logger

GROUP = "agent-pool"
#: Ranges that are asked for one image.
RANGES_LIMIT = 5
#: Layers may lie in the registry compressed: an image's own bytes, at most, for each byte there. And what an archive
#: has beside layers.
_UNPACKED_RATIO = 4
_SPARE_BYTES = 64 * 1024**2
#: What a range may take for the longest archive that is read of it: a slow one must not keep the others waiting.
_LEAST_SECONDS, _BYTES_PER_SECOND = 120.0, 4 * 1024**2

#: Layers out of an engine's `docker save`, of so many bytes at most.
SavedLayers = Callable[[SavedImages, int], LayerSource]
#: Opens what a push reads of one range's engine.
Opening = Callable[[], AbstractAsyncContextManager[SavedImages]]


class RangePush:
    """The subscription of the agent pool. `open_engine` opens a range's engine by its address.

    `uploads` asks the agents of ranges on this host; None: only engines that can be called are asked. `host` is where
    this pool is, empty where the installation has one host.
    """

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        open_engine: Callable[[str], AbstractAsyncContextManager[Engine]],
        registry: Registry,
        saved_layers: SavedLayers,
        encodings: LayerEncodings,
        engine_networks: str = "",
        uploads: RangeUploads | None = None,
        host: str = "",
        lease_seconds: float = 30.0,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._open_engine = open_engine
        self._registry = registry
        self._saved_layers = saved_layers
        self._encodings = encodings
        self._engine_networks = engine_networks
        self._uploads, self._host = uploads, host
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
        for range_id, opening in await self._sources(entry):
            pushed = await self._push(entry, range_id, opening)
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

    async def _sources(self, entry: RegistryEntry) -> list[tuple[str, Opening]]:
        """Ranges to ask, best first: those that have the image by a deployment, then those that say so themselves.

        A containerd engine cannot tell the image's id, so its name is enough.
        """
        keys, read_model = RangeKeys(self._streams.prefix), ReadModelKeys(self._streams.prefix)
        placed = await self._bus.members(keys.places)
        known = await self._bus.members(keys.known_index) if self._uploads is not None else []
        deployed: list[tuple[str, Opening]] = []
        claimed: list[tuple[str, Opening]] = []
        for range_id in dict.fromkeys((*placed, *known)):
            inventory = (await read_model.holdings(range_id).load(self._bus)).value
            if inventory is None or inventory.images.get(entry.reference, "") not in (None, entry.image_id):
                continue
            wanted = (await keys.wanted(range_id).load(self._bus)).value
            desired = wanted.images.get(entry.reference) if wanted is not None else None
            diff_ids = desired.diff_ids if desired is not None and desired.image_id == entry.image_id else ()
            opening = await self._opening(entry, range_id, diff_ids)
            if opening is not None:
                (deployed if diff_ids else claimed).append((range_id, opening))
        return (deployed + claimed)[:RANGES_LIMIT]

    async def _opening(self, entry: RegistryEntry, range_id: str, diff_ids: tuple[str, ...]) -> Opening | None:
        """`diff_ids` as a deployment brought them; without, the range's own word is taken until the config is read."""
        keys = RangeKeys(self._streams.prefix)
        place: EnginePlace | None = (await keys.place(range_id).load(self._bus)).value
        if place is not None:
            refused = engine_refusal(place.engine_url, self._engine_networks) is not None
            return None if refused else partial(self._open_engine, place.engine_url)
        known = (await keys.known(range_id).load(self._bus)).value
        (beat,) = await self._bus.beats([self._streams.alive(range_id)])
        if self._uploads is None or beat is None or known is None or not known.gives_images:
            return None
        said = (image.diff_ids for image in known.images if entry.reference in image.references)
        diff_ids = diff_ids or next(said, ())
        if known.host not in ("", self._host) or not diff_ids:
            return None
        image = EngineImage(
            local_id=entry.image_id,
            image_id=entry.image_id if known.store == "classic" else None,
            diff_ids=diff_ids,
        )
        saved = RangeImage(self._uploads, range_id, entry.reference, entry.image_id, image)
        return lambda: nullcontext(saved)

    async def _push(self, entry: RegistryEntry, range_id: str, opening: Opening) -> ImagePushed | None:
        limit_bytes = _UNPACKED_RATIO * entry.size_bytes + _SPARE_BYTES
        try:
            async with asyncio.timeout(_LEAST_SECONDS + limit_bytes / _BYTES_PER_SECOND), opening() as engine:
                push = self._push_from(engine, entry, limit_bytes)
                pushed = await push.push(entry.reference, image_id=entry.image_id)
        except (CyroidError, OSError, TimeoutError) as problem:
            why = str(problem) or "it took too long"
            self._log.warning("a range does not give an image", image=entry.reference, range=range_id, why=why)
            return None
        self._log.info("pushed from a range", image=entry.reference, range=range_id, sent=pushed.sent_bytes)
        return pushed

    def _push_from(self, engine: SavedImages, entry: RegistryEntry, limit_bytes: int) -> ImagePush:
        """A push whose layers come out of this engine's archive alone."""
        saved = self._saved_layers(engine, limit_bytes)
        return ImagePush(
            engine=engine,
            registry=self._registry,
            sources=[RecordedConfig(self._registry, entry.repository, entry.image_id), saved],
            layers=LayerPush(registry=self._registry, sources=[saved], encodings=self._encodings),
            engine_registry=None,
        )
