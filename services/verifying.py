"""Compares what a range has with what it should have.

What it should have is the deployer's record of it, and for images that were named but never deployed there what the
host's engine has under that name, or the registry. What it has is the range's own word: its engine is asked, or else
the records of what its agent said, which are as old as they say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from events.bus import Speaker
from events.messages import PresentImage
from events.streams import Streams
from services.core.holdings import HoldingKeys, Holdings, present
from services.core.manifests import ImageConfig
from services.core.ranges import KnownRange, RangeKeys, WantedImage, WantedImages
from services.core.references import Reference
from services.core.unwanted import UnwantedImage
from services.core.verdicts import Verdict, judge
from services.errors import NotFound, TransferFailed, Unavailable
from services.ports import Engine, Registry
from services.unwanted import in_ranges

Look = Callable[[str], Awaitable[PresentImage | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The verdicts, and how old the range's word is: `as_of` None means that its engine was asked just now.

    `unwanted` is what is there beyond; told with all that the range should have, not with images that were named.
    """

    verdicts: tuple[Verdict, ...]
    as_of: datetime | None = None
    unwanted: tuple[UnwantedImage, ...] = ()

    @property
    def well(self) -> bool:
        return all(one.verdict == "ok" for one in self.verdicts)

    def told(self, range_id: str) -> dict[str, Any]:
        """For programs."""
        return {
            "range_id": range_id,
            "as_of": self.as_of,
            "well": self.well,
            "items": self.verdicts,
            "unwanted": self.unwanted,
        }


class Verifier:
    """Reads records; the host's `engine` and the `registry` tell only of images never deployed."""

    def __init__(
        self,
        *,
        speaker: Speaker,
        streams: Streams,
        engine: Callable[[], Awaitable[Engine]],
        registry: Callable[[], Awaitable[Registry]],
    ) -> None:
        self._speaker = speaker
        self._streams = streams
        self._range_keys, self._holding_keys = RangeKeys(streams.prefix), HoldingKeys(streams.prefix)
        self._engine, self._registry = engine, registry

    async def verify(self, range_id: str, references: Sequence[str] = (), *, asked: Engine | None = None) -> Verified:
        """All that the range should have, or `references` alone; `asked` is its engine.

        Raises NotFound for a range that never spoke where its engine is not asked.
        """
        names = [str(Reference.parse(text)) for text in references]
        wanted = await self._wanted(range_id)
        look, as_of = (_engines(asked), None) if asked is not None else await self._records(range_id)
        verdicts = [
            judge(name, wanted.get(name) or await self._elsewhere(name), await look(name))
            for name in dict.fromkeys(names or sorted(wanted))
        ]
        unwanted = () if names else await self._beyond(range_id, asked)
        return Verified(verdicts=tuple(verdicts), as_of=as_of, unwanted=unwanted)

    async def _beyond(self, range_id: str, asked: Engine | None) -> tuple[UnwantedImage, ...]:
        held = Holdings.announced(range_id, present(await asked.images())) if asked is not None else None
        found = await in_ranges(self._speaker, self._streams, [range_id], held=held)
        return found[0].images if found else ()

    async def _wanted(self, range_id: str) -> dict[str, WantedImage]:
        record = await self._speaker.load(self._range_keys.wanted(range_id))
        return msgspec.json.decode(record.value, type=WantedImages).images if record else {}

    async def _records(self, range_id: str) -> tuple[Look, datetime]:
        """What its agent said when it came up, and what arrived since. The time is that of the latest word."""
        keys = [self._range_keys.known(range_id), self._holding_keys.holdings(range_id)]
        first, later = await self._speaker.load_many(keys)
        known = msgspec.json.decode(first.value, type=KnownRange) if first else None
        holdings = msgspec.json.decode(later.value, type=Holdings) if later else None
        told = {name: image for image in known.images for name in image.references} if known else {}
        times = [at for at in (known and known.started_at, holdings and holdings.heard_at) if at]
        if not times:
            raise NotFound(
                f"range {range_id} never said what it has; `cyroid-images ranges ls` lists those that spoke, and"
                " --engine-url asks its engine itself"
            )
        if holdings is None:
            return _said(told), max(times)
        merged = {
            name: PresentImage(
                references=(name,),
                image_id=image_id,
                diff_ids=told[name].diff_ids if image_id is None and name in told else (),
            )
            for name, image_id in holdings.images.items()
        }
        return _said(merged), max(times)

    async def _elsewhere(self, name: str) -> WantedImage | None:
        """What a deployment would bring now; None where nobody knows."""
        with suppress(Unavailable):
            image = await (await self._engine()).inspect(name)
            if image is not None:
                return _wanted(name, image.image_id, image.diff_ids)
        with suppress(Unavailable, TransferFailed):
            registry, reference = await self._registry(), Reference.parse(name)
            found = await registry.manifest(reference.repository, reference.registry_tag)
            if found is not None:
                config = found[1].body.config.digest
                async with registry.open_blob(reference.repository, config) as chunks:
                    content = b"".join([chunk async for chunk in chunks])
                return _wanted(name, config, ImageConfig.parse(content).rootfs.diff_ids)
        return None


def _wanted(name: str, image_id: str | None, diff_ids: tuple[str, ...]) -> WantedImage:
    return WantedImage(reference=name, image_id=image_id or "", diff_ids=diff_ids, deployment_id="")


def _engines(engine: Engine) -> Look:
    async def look(name: str) -> PresentImage | None:
        image = await engine.inspect(name)
        if image is None:
            return None
        return PresentImage(references=image.references, image_id=image.image_id, diff_ids=image.diff_ids)

    return look


def _said(images: dict[str, PresentImage]) -> Look:
    async def look(name: str) -> PresentImage | None:
        return images.get(name)

    return look
