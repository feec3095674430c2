"""Registry scan: compares the read model with the registry itself, slowly, and repairs the read model.

Tags that others pushed appear, tags that are gone go, and damage is told: a manifest that is not what its digest says,
a layer that is missing or was cut. Layers are looked for when a manifest is new, and of every tenth image in each scan.
A push or deletion that is heard of meanwhile wins: a record is written only if it is still what the scan read.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from events.bus import BusClient, IndexWrite, Outcome, RecordConflict
from events.records import ANY, Stored
from services.content.registry_config import registry_config
from services.core.images.manifests import Manifest
from services.core.images.read_model import ImageLayers, ReadModelKeys, RegistryEntry, deleted
from services.core.images.references import Reference
from services.core.images.registry_scan import ScanKeys, ScanReport, layers_hash
from services.errors import BadInput, CyroidError, RegistryUnavailable, TransferFailed
from services.ports import Registry

#: After each tag, so that a scan never takes more than a part of the registry's time.
PAUSE_SECONDS = 0.005
DAMAGED_NAMED = 20
_OFTEN = 10
#: One request of the registry's own client has limits in time; this is for the scan of one tag.
_TAG_SECONDS = 120.0


class RegistryScan:
    """One scan. `round_` chooses which images' layers are looked for."""

    def __init__(
        self, *, bus: BusClient, registry: Registry, prefix: str, clock: Callable[[], datetime], round_: int = 0
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._keys = ReadModelKeys(prefix)
        self._clock = clock
        self._round = round_
        self._listed: set[str] = set()
        self._damaged: list[str] = []
        self._added = self._removed = 0

    async def run(self, began_at: datetime) -> ScanReport:
        """Scan everything. Raises RegistryUnavailable, BusError."""
        async for repository in self._registry.repositories():
            for tag in await self._registry.tags(repository):
                async with asyncio.timeout(_TAG_SECONDS):
                    await self._tag(repository, tag)
                await asyncio.sleep(PAUSE_SECONDS)
        for name in sorted(set(await self._bus.members(self._keys.images)) - self._listed):
            await self._missing(name)
        await self._prune()
        return ScanReport(
            began_at=began_at,
            ended_at=self._clock(),
            rows=len(self._listed),
            added=self._added,
            removed=self._removed,
            damaged=tuple(self._damaged[:DAMAGED_NAMED]),
        )

    async def _tag(self, repository: str, tag: str) -> None:
        named = Reference.from_registry(repository, tag)
        name = str(named) if named is not None else f"{repository}:{tag}"
        self._listed.add(name)
        stored = await self._keys.image(name).load(self._bus)
        entry, layers = await self._look(name, repository, tag, stored)
        if entry is None:
            self._listed.discard(name)
            return
        if entry.problem:
            self._damaged.append(name)
        if entry == stored.value and layers is None:
            return
        self._added += stored.value is None
        await self._write(stored, entry, layers)

    async def _look(
        self, name: str, repository: str, tag: str, stored: Stored[RegistryEntry]
    ) -> tuple[RegistryEntry | None, ImageLayers | None]:
        """The entry as it should be, None for a tag that is gone; and its layers where they are news."""
        before = stored.value
        try:
            found = await self._registry.manifest(repository, tag)
        except RegistryUnavailable:
            raise
        except BadInput:
            return self._unread(name, repository, tag, before, ""), None
        except CyroidError as error:
            return self._unread(name, repository, tag, before, str(error)), None
        if found is None:
            return None, None
        descriptor, manifest = found
        known = before is not None and before.manifest_digest == descriptor.digest
        if before is not None and known and not before.problem and self._is_not_due(name):
            return before, None
        problem = await self._damage(repository, manifest)
        if known and before is not None:
            has_layers = (await self._keys.layers(name).load(self._bus)).value is not None
            layers = None if has_layers else _layers(name, descriptor.digest, manifest)
            return msgspec.structs.replace(before, problem=problem, kind="image"), layers
        entry = RegistryEntry(
            reference=name,
            repository=repository,
            tag=tag,
            manifest_digest=descriptor.digest,
            image_id=manifest.body.config.digest,
            layers=len(manifest.body.layers),
            size_bytes=sum(layer.size for layer in manifest.body.layers),
            pushed_at=self._clock(),
            problem=problem,
            foreign=True,
            layers_hash=await self._layers_hash(repository, manifest),
        )
        return entry, _layers(name, descriptor.digest, manifest)

    def _is_not_due(self, name: str) -> bool:
        """Whether the blobs of an image that is known are left for another scan."""
        return bool((zlib.crc32(name.encode()) + self._round) % _OFTEN)

    def _unread(
        self, name: str, repository: str, tag: str, before: RegistryEntry | None, problem: str
    ) -> RegistryEntry:
        """The entry of a tag that names no image that can be read; what was known of it stays."""
        if before is not None and problem:
            return msgspec.structs.replace(before, problem=problem)
        return RegistryEntry(
            reference=name,
            repository=repository,
            tag=tag,
            manifest_digest="",
            image_id="",
            layers=0,
            size_bytes=0,
            pushed_at=before.pushed_at if before is not None and before.kind == "other" else self._clock(),
            kind="other",
            problem=problem,
            foreign=True,
        )

    async def _damage(self, repository: str, manifest: Manifest) -> str:
        """What is wrong with the blobs of an image; empty where nothing is. Raises RegistryUnavailable."""
        wanted = {one.digest: one.size for one in (manifest.body.config, *manifest.body.layers)}
        for digest, size_bytes in wanted.items():
            try:
                there = await self._registry.blob_size(repository, digest)
            except RegistryUnavailable:
                raise
            except CyroidError as problem:
                return str(problem)
            if there is None:
                return f"the blob {digest} is missing"
            if there != size_bytes:
                return f"the blob {digest} has {there} bytes, and should have {size_bytes}"
        return ""

    async def _layers_hash(self, repository: str, manifest: Manifest) -> str:
        try:
            config = await registry_config(self._registry, repository, manifest)
        except (BadInput, TransferFailed):
            return ""
        return layers_hash(config.rootfs.diff_ids)

    async def _write(self, stored: Stored[RegistryEntry], entry: RegistryEntry, layers: ImageLayers | None) -> None:
        name = entry.reference
        records = [self._keys.image(name).write(entry, expected=stored)]
        if layers is not None:
            records.append(self._keys.layers(name).write(layers, expected=ANY))
        index = (
            IndexWrite(self._keys.images, name, entry.pushed_at.timestamp()),
            IndexWrite(self._keys.image_changes, name, self._clock().timestamp()),
        )
        await self._commit(Outcome(records=tuple(records), index=index))

    async def _missing(self, name: str) -> None:
        """Take an image off the list that the registry did not list, if it is really gone."""
        stored = await self._keys.image(name).load(self._bus)
        entry = stored.value
        if entry is not None and await self._is_there(entry):
            return
        self._removed += 1
        await self._commit(deleted(self._keys, name, self._clock(), expected=stored))

    async def _is_there(self, entry: RegistryEntry) -> bool:
        try:
            return await self._registry.manifest(entry.repository, entry.tag) is not None
        except RegistryUnavailable:
            raise
        except CyroidError:
            return True

    async def _prune(self) -> None:
        """Forget changes that every reader has seen long ago."""
        old = (self._clock() - timedelta(days=1)).timestamp()
        names = await self._bus.members(self._keys.image_changes, high=old)
        if names:
            await self._bus.commit(
                Outcome(index=tuple(IndexWrite(self._keys.image_changes, one, None) for one in names))
            )

    async def _commit(self, outcome: Outcome) -> None:
        try:
            await self._bus.commit(outcome)
        except RecordConflict:
            return  # a push or a deletion was heard of meanwhile: it knows better


def _layers(name: str, digest: str, manifest: Manifest) -> ImageLayers:
    layers = tuple((layer.digest, layer.size) for layer in manifest.body.layers)
    return ImageLayers(reference=name, manifest_digest=digest, layers=layers)


class Scanner:
    """Scans once in a while; of several trackers one at a time, whose claim is the report it began with."""

    def __init__(
        self, *, bus: BusClient, registry: Registry, prefix: str, clock: Callable[[], datetime], every_seconds: float
    ) -> None:
        self._bus, self._registry, self._prefix, self._clock = bus, registry, prefix, clock
        self._key = ScanKeys(prefix).registry
        self._every = timedelta(seconds=every_seconds)
        self._round = 0

    async def scan(self) -> bool:
        """Scan if it is time. Returns whether it was. Raises BusError."""
        now = self._clock()
        stored = await self._key.load(self._bus)
        last = stored.value
        if last is not None and now - last.began_at < self._every:
            return False
        claim = ScanReport(began_at=now, ended_at=None) if last is None else msgspec.structs.replace(last, began_at=now)
        try:
            await self._bus.commit(Outcome(records=(self._key.write(claim, expected=stored),)))
        except RecordConflict:
            return False
        self._round += 1
        scan = RegistryScan(
            bus=self._bus, registry=self._registry, prefix=self._prefix, clock=self._clock, round_=self._round
        )
        try:
            report = await scan.run(now)
        except CyroidError as problem:
            report = msgspec.structs.replace(claim, error=problem.failure())
        except TimeoutError:
            slow = RegistryUnavailable("the registry did not answer a scan in time")
            report = msgspec.structs.replace(claim, error=slow.failure())
        await self._bus.commit(Outcome(records=(self._key.write(report, expected=ANY),)))
        return True
