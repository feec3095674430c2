"""Records of a large installation, as its roles would have written them: images, ranges and deployments."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from events.bus import BusClient, IndexWrite, Outcome, RecordWrite
from events.messages import PresentImage
from events.records import ANY
from events.streams import Streams
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.index import DeploymentKeys, index_writes
from services.core.images.read_model import ImageLayers, RangeInventory, ReadModelKeys, RegistryEntry
from services.core.images.registry_scan import ScanKeys, ScanReport
from services.core.ranges.heartbeat import AgentHeartbeat
from services.core.ranges.ranges import DesiredImage, DesiredImages, KnownRange, RangeKeys

LAYERS_PER_IMAGE = 8
IMAGES_PER_RANGE = 20
_AT_ONCE = 100


def digest(text: str) -> str:
    """A digest as a registry has it."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def name_of(number: int) -> str:
    """The reference of one image: a hundred repositories."""
    return f"docker.io/training/course-{number % 100:02}:{number // 100}"


class Filler:
    """Writes records in batches."""

    def __init__(self, bus: BusClient, streams: Streams) -> None:
        self._bus, self._streams = bus, streams
        self._now = datetime.now(UTC)
        self._dice = random.Random(7)  # the same installation every time
        self._records: list[RecordWrite] = []
        self._index: list[IndexWrite] = []

    async def fill(self, *, images: int, ranges: int, deployments: int) -> None:
        """Everything that lists are made of."""
        for number in range(images):
            await self._add(*self._image(number))
        for number in range(ranges):
            await self._add(*self._range(number, images))
            beat = AgentHeartbeat(engine_id=f"e{number}", engine_version="28.5.1", at=self._now.isoformat())
            await self._bus.beat(self._streams.alive(f"range-{number}"), beat.encode(), 3600.0)
        for number in range(deployments):
            await self._add(*self._deployment(number, images, ranges))
        report = ScanReport(began_at=self._now, ended_at=self._now, rows=images)
        await self._add([ScanKeys(self._streams.prefix).registry.write(report, expected=ANY)], [])
        await self._flush()

    async def _add(self, records: Sequence[RecordWrite], index: Sequence[IndexWrite]) -> None:
        self._records += records
        self._index += index
        if len(self._records) >= _AT_ONCE:
            await self._flush()

    async def _flush(self) -> None:
        await self._bus.commit(Outcome(records=tuple(self._records), index=tuple(self._index)))
        self._records, self._index = [], []

    def _image(self, number: int) -> tuple[list[RecordWrite], list[IndexWrite]]:
        """Six layers of a shared base, one of the repository, one of its own."""
        keys, name = ReadModelKeys(self._streams.prefix), name_of(number)
        shared = [digest(f"base {number % 50} {place}") for place in range(LAYERS_PER_IMAGE - 2)]
        layers = [*shared, digest(f"repository {number % 100}"), digest(f"own {number}")]
        sizes = tuple((one, int(one[7:13], 16) * 10) for one in layers)
        at = self._now - timedelta(seconds=number)
        entry = RegistryEntry(
            reference=name,
            repository=f"training/course-{number % 100:02}",
            tag=str(number // 100),
            manifest_digest=digest(f"manifest {number}"),
            image_id=digest(name),
            layers=len(layers),
            size_bytes=sum(size for _, size in sizes),
            pushed_at=at,
            actor="eva",
            source="cli@host",
        )
        its = ImageLayers(reference=name, manifest_digest=entry.manifest_digest, layers=sizes)
        records = [keys.image(name).write(entry, expected=ANY), keys.layers(name).write(its, expected=ANY)]
        return records, [IndexWrite(keys.images, name, at.timestamp())]

    def _range(self, number: int, images: int) -> tuple[list[RecordWrite], list[IndexWrite]]:
        keys, range_id = RangeKeys(self._streams.prefix), f"range-{number}"
        names = [name_of(self._dice.randrange(images)) for _ in range(IMAGES_PER_RANGE)]
        held = [PresentImage(references=(name,), diff_ids=(), image_id=digest(name), size_bytes=5) for name in names]
        known = KnownRange(
            range_id=range_id,
            engine_id=f"e{number}",
            engine_version="28.5.1",
            store="classic",
            platform="linux/amd64",
            started_at=self._now,
        )
        wanted = {
            name: DesiredImage(reference=name, image_id=digest(name), diff_ids=(), deployment_id="d") for name in names
        }
        records = [
            keys.known(range_id).write(known, expected=ANY),
            keys.wanted(range_id).write(DesiredImages(range_id=range_id, images=wanted), expected=ANY),
            ReadModelKeys(self._streams.prefix)
            .holdings(range_id)
            .write(RangeInventory.announced(range_id, held, self._now), expected=ANY),
        ]
        return records, [IndexWrite(keys.known_index, range_id, self._now.timestamp())]

    def _deployment(self, number: int, images: int, ranges: int) -> tuple[list[RecordWrite], list[IndexWrite]]:
        """One in four is open."""
        keys, at = DeploymentKeys(self._streams.prefix), self._now - timedelta(seconds=number)
        running = number % 4 == 0
        states = tuple(
            ImageState(
                reference=name_of(self._dice.randrange(images)),
                state="pulling" if running else "ready",
                since=at,
                transfer_id=f"d{number}.{place}.1",
                size_bytes=5,
            )
            for place in range(3)
        )
        deployment = Deployment(
            deployment_id=f"d{number}",
            range_id=f"range-{number % ranges}",
            state="running" if running else "succeeded",
            asked=tuple(image.reference for image in states),
            images=states,
            requested_at=at,
            ended_at=None if running else at,
            correlation_id=f"c{number}",
            actor="eva",
        )
        record = keys.record(deployment.deployment_id).write(deployment, expected=ANY)
        return [record], list(index_writes(keys, None, deployment))
