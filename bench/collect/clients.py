"""Clients of a storm: pushers of the project and foreign ones, pullers, and one that deletes. Each keeps a ledger."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from events.bus import BusClient, IndexWrite, Outcome
from services.adapters.registry import HttpRegistry
from services.collector.storage import RegistryStorage
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from services.errors import BadInput, CyroidError, TransferFailed
from services.ports import Registry

REPOSITORIES = ("storm/a", "storm/b", "storm/c")
LAYERS = 120


@dataclass(slots=True)
class Ledger:
    """What was acknowledged and what was seen. `tags` are those that the registry acknowledged and nobody deleted."""

    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    busy: set[tuple[str, str]] = field(default_factory=set)
    pulls: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    pushes: int = 0
    own_refused: int = 0
    own_blocked_seconds: float = 0.0
    stranger_refused: int = 0
    deleted: int = 0


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def layer(number: int) -> bytes:
    """Layer `number` of the storm: the same bytes whoever pushes it."""
    return random.Random(number).randbytes(500 + number * 37)


class Clients:
    """`own` announces what it relies on (the pushers of the project), `plain` is how a stranger pushes and pulls."""

    def __init__(
        self,
        *,
        own: Registry,
        plain: HttpRegistry,
        pull: HttpRegistry,
        storage: RegistryStorage,
        bus: BusClient,
        pins: str,
        dice: random.Random,
    ) -> None:
        self._own, self._plain, self._pull = own, plain, pull
        self._storage, self._bus, self._pins, self._dice = storage, bus, pins, dice
        self.ledger = Ledger()

    async def push_for_ever(self, *, stranger: bool) -> None:
        """Images of layers that are shared at random; a refused manifest is pushed again from the start."""
        registry: Registry = self._plain if stranger else self._own
        while True:
            place = (self._dice.choice(REPOSITORIES), f"t{self._dice.randrange(40)}")
            if place in self.ledger.busy:
                await asyncio.sleep(0.01)
                continue
            self.ledger.busy.add(place)
            try:
                await self._push(registry, place, stranger)
            except CyroidError:
                await asyncio.sleep(0.02)  # the registry was killed in the middle: the tag is what it was before or not
                await self._settle(place)
            except asyncio.CancelledError:  # killed: nothing was acknowledged, and its last request may still arrive
                self.ledger.tags.pop(place, None)
                asyncio.get_running_loop().call_later(1.0, self.ledger.busy.discard, place)
                raise
            self.ledger.busy.discard(place)

    async def _push(self, registry: Registry, place: tuple[str, str], stranger: bool) -> None:
        repository, tag = place
        config = b'{"architecture":"amd64","os":"linux","n":%d}' % self._dice.randrange(400)
        chosen = [layer(self._dice.randrange(LAYERS)) for _ in range(3)]
        for _ in range(5):
            began = time.monotonic()
            blobs = [await self._have(registry, repository, content) for content in (config, *chosen)]
            manifest = Manifest.write(
                Descriptor(media_type=OCI_CONFIG, digest=blobs[0].digest, size=blobs[0].size), tuple(blobs[1:])
            )
            try:
                await registry.put_manifest(repository, tag, manifest)
            except (BadInput, TransferFailed):
                if stranger:
                    self.ledger.stranger_refused += 1
                else:
                    self.ledger.own_refused += 1
                    self.ledger.own_blocked_seconds += time.monotonic() - began
                continue
            self.ledger.pushes += 1
            self.ledger.tags[place] = manifest.digest
            return
        await self._settle(place)

    async def _have(self, registry: Registry, repository: str, content: bytes) -> Descriptor:
        """HEAD, then an upload where it is missing, as every pusher does."""
        digest = sha256(content)
        if await registry.blob_size(repository, digest) is None:
            await registry.put_blob(repository, digest, len(content), once(content))
        return Descriptor(media_type=OCI_LAYER, digest=digest, size=len(content))

    async def _settle(self, place: tuple[str, str]) -> None:
        """What a tag names after an answer that got lost: whatever the registry says now."""
        state = await asyncio.to_thread(self._storage.repository, place[0])
        found = state.tags.get(place[1])
        if found is not None and found.current is not None:
            self.ledger.tags[place] = f"sha256:{found.current}"
        else:
            self.ledger.tags.pop(place, None)

    async def pull_for_ever(self) -> None:
        """Read what a tag names, whole; a tenth is pinned as a deployment pins it, and read slower than the grace."""
        while True:
            known = list(self.ledger.tags.items())
            if not known:
                await asyncio.sleep(0.05)
                continue
            place, digest = self._dice.choice(known)
            pinned = self._dice.random() < 0.1
            if pinned:
                await self._bus.commit(Outcome(index=(IndexWrite(self._pins, digest.partition(":")[2], 1.0),)))
            if place in self.ledger.busy or self.ledger.tags.get(place) != digest:
                continue
            await self._read(place[0], digest, slow=pinned)

    async def _read(self, repository: str, digest: str, *, slow: bool) -> None:
        try:
            found = await self._pull.manifest(repository, digest)
        except CyroidError:
            return  # the process that serves was killed before the manifest was given: no pull began
        if found is None:
            return
        self.ledger.pulls += 1
        body = found[1].body
        for blob in (body.config, *body.layers):
            if slow:
                await asyncio.sleep(0.8)
            try:
                content = bytearray()
                async with self._pull.open_blob(repository, blob.digest) as chunks:
                    async for chunk in chunks:
                        content += chunk
            except CyroidError as problem:
                self.ledger.failed.append(f"{repository}@{digest}: {problem}")
                return
            if "sha256:" + hashlib.sha256(content).hexdigest() != blob.digest:
                self.ledger.wrong.append(f"{repository}@{digest}: {blob.digest}")

    async def delete_for_ever(self) -> None:
        """By the collector's way, and now and then by digest through the API, as a stranger does."""
        while True:
            await asyncio.sleep(0.1)
            free = [place for place in self.ledger.tags if place not in self.ledger.busy]
            if len(free) < 20:
                continue
            place = self._dice.choice(free)
            self.ledger.busy.add(place)
            try:
                await self._delete(place)
            finally:
                self.ledger.busy.discard(place)

    async def _delete(self, place: tuple[str, str]) -> None:
        repository, tag = place
        digest = self.ledger.tags.pop(place)
        if self._dice.random() < 0.7:
            await asyncio.to_thread(self._storage.delete_tag, repository, tag, digest.partition(":")[2])
        else:
            siblings = [
                other for other, named in self.ledger.tags.items() if other[0] == repository and named == digest
            ]
            if any(other in self.ledger.busy for other in siblings):
                self.ledger.tags[place] = digest
                return
            try:
                await self._plain.delete_manifest(repository, digest)
            except CyroidError:
                await self._settle(place)
            for other in siblings:
                self.ledger.tags.pop(other, None)
                await self._settle(other)
        self.ledger.deleted += 1
