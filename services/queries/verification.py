"""Verification of a range: compares what it has with what it should have.

What it should have is the deployer's record of it, and for images that were named but never deployed there what the
host's engine has under that name, or the registry. What it has is what the range itself reports: its engine is asked,
or else the records of its agent's last report, which may be old. What its layers stand on is reported by its agent and
the host's layer-mounter in any case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec

from events.bus import BusClient
from events.messages import PresentImage
from events.records import load_both
from events.streams import Streams
from services.core.images.manifests import ImageConfig
from services.core.images.read_model import RangeInventory, ReadModelKeys, present
from services.core.images.references import Reference
from services.core.mounts.problems import unreadable
from services.core.ranges.drift import DriftResult, RangeState, drift_of
from services.core.ranges.ranges import DesiredImage, KnownRange, RangeKeys
from services.core.ranges.unreferenced import UnreferencedImage
from services.errors import NotFound, TransferFailed, Unavailable
from services.ports import Engine, Registry
from services.queries.mounted_layers import mounting_hosts
from services.queries.unreferenced import in_ranges

Inspect = Callable[[str], Awaitable[PresentImage | None]]


class RangeVerification(msgspec.Struct, frozen=True, kw_only=True):
    """The drift result of each image, and how old the report is: `as_of` None means that the engine was asked just now.

    `unwanted` are the unreferenced images, where the range as a whole was verified; empty for single images.
    """

    range_id: str
    as_of: datetime | None
    well: bool
    items: tuple[DriftResult, ...]
    unwanted: tuple[UnreferencedImage, ...]


class Verifier:
    """Reads records. The host's `engine` and the `registry` are asked only about images that were never deployed."""

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        engine: Callable[[], Awaitable[Engine]],
        registry: Callable[[], Awaitable[Registry]],
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._range_keys, self._holding_keys = RangeKeys(streams.prefix), ReadModelKeys(streams.prefix)
        self._engine, self._registry = engine, registry

    async def verify(
        self,
        range_id: str,
        references: Sequence[str] = (),
        *,
        asked: Engine | None = None,
        state: RangeState | None = None,
    ) -> RangeVerification:
        """All that the range should have, or `references` alone; `asked` is its engine.

        `state` is what is known of the range, where that is at hand; else its records are read.

        Raises NotFound for a range that never spoke where its engine is not asked.
        """
        names = [str(Reference.parse(text)) for text in references]
        inspect: Inspect
        as_of: datetime | None
        if state is not None:
            wanted = state.wanted.images if state.wanted else {}
            inspect, as_of = _reported(range_id, state.known, state.held)
        else:
            wanted = await self._wanted(range_id)
            inspect, as_of = (_engines(asked), None) if asked is not None else await self._records(range_id)
        broken = await self._unreadable(range_id, state.known if state is not None else None)
        verdicts = [
            drift_of(name, wanted.get(name) or await self._elsewhere(name), await inspect(name), broken)
            for name in dict.fromkeys(names or sorted(wanted))
        ]
        unwanted = () if names else state.unreferenced if state else await self._beyond(range_id, asked)
        well = all(one.verdict == "ok" for one in verdicts)
        return RangeVerification(range_id=range_id, as_of=as_of, well=well, items=tuple(verdicts), unwanted=unwanted)

    async def _beyond(self, range_id: str, asked: Engine | None) -> tuple[UnreferencedImage, ...]:
        held = RangeInventory.announced(range_id, present(await asked.images())) if asked is not None else None
        found = await in_ranges(self._bus, self._streams, [range_id], held=held)
        return found[0].images if found else ()

    async def _unreadable(self, range_id: str, known: KnownRange | None) -> dict[str, str]:
        """Why mounted layers of the range cannot be read, as its host's layer-mounter and its agent said last."""
        known = known or (await self._range_keys.known(range_id).load(self._bus)).value
        mounting = await mounting_hosts(self._bus, self._streams.prefix)
        found = {host: one.problems for host, one in mounting.items()}
        reported = known.unreadable_layers if known is not None else ()
        own = [host for host in mounting if known is None or known.host in {"", host}]
        beats = await self._bus.beats([self._streams.mounter_alive(host) for host in own]) if reported else []
        return unreadable(range_id, found, reported, mounter_runs=any(beats))

    async def _wanted(self, range_id: str) -> dict[str, DesiredImage]:
        wanted = (await self._range_keys.wanted(range_id).load(self._bus)).value
        return wanted.images if wanted else {}

    async def _records(self, range_id: str) -> tuple[Inspect, datetime]:
        first, later = self._range_keys.known(range_id), self._holding_keys.holdings(range_id)
        said, held = await load_both(self._bus, first, later)
        return _reported(range_id, said.value, held.value)

    async def _elsewhere(self, name: str) -> DesiredImage | None:
        """The content that a deployment would bring now; None where it is not known."""
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


def _wanted(name: str, image_id: str | None, diff_ids: tuple[str, ...]) -> DesiredImage:
    return DesiredImage(reference=name, image_id=image_id or "", diff_ids=diff_ids, deployment_id="")


def _engines(engine: Engine) -> Inspect:
    async def inspect(name: str) -> PresentImage | None:
        image = await engine.inspect(name)
        if image is None:
            return None
        return PresentImage(references=image.references, image_id=image.image_id, diff_ids=image.diff_ids)

    return inspect


def _reported(range_id: str, known: KnownRange | None, held: RangeInventory | None) -> tuple[Inspect, datetime]:
    """The content that the range's agent last reported, with the arrivals since, and the time of the latest report."""
    holdings = held if held is not None and held.is_report else None
    told = {name: image for image in known.images for name in image.references} if known else {}
    times = [at for at in (known and known.started_at, holdings and holdings.heard_at) if at]
    if not times:
        raise NotFound(
            f"range {range_id} never reported its images",
            hint="cyroid-images ranges ls (or verify with --engine-url, which asks the engine itself)",
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


def _said(images: dict[str, PresentImage]) -> Inspect:
    async def inspect(name: str) -> PresentImage | None:
        return images.get(name)

    return inspect
