"""Online garbage collection: mark, quarantine, second look, removal, while the registry runs and clients use it.

A collection is a sequence of steps that may each be the last one (a kill, a full disk), and all of it may be run again:

1. Recover: what an earlier run set aside and something references by now comes back.
2. Mark (`services.core.store.mark`): what tags, pins and references younger than the grace reach.
3. Candidates: blobs that nothing references, whose files and links are older than the grace, and that the last mark
   before a grace ago found unreferenced already (`UnreferencedSince`).
4. Quarantine by one rename each, in small batches. The links stay, so bringing one back is one step.
5. Second look after each batch: a blob that a push announced (`services.core.store.intents`), that was linked
   meanwhile, or that a new manifest names comes back. A pusher announces before its first HEAD and this reads after
   the rename, so one of the two always sees the other.
6. Removal: what has been in quarantine longer than `keep_seconds`, and is still unreferenced, is freed, links first.

A client that checked a blob before step 4 and puts its manifest afterwards is refused by the registry itself (400,
MANIFEST_BLOB_UNKNOWN) and uploads again; one whose PUT hangs longer than any batch is found by the look before step 6.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field

from services.collector.background import in_background
from services.collector.progress import Step, untold
from services.collector.storage import BlobState, RegistryStorage
from services.collector.unreferenced_since import UnreferencedSince
from services.core.store.mark import Mark, mark_repository

#: Digests of manifests and configs that are referenced from outside the registry, without `sha256:`.
Pins = Collection[str]
#: What must not be collected now, asked anew at every look.
ReadPins = Callable[[], Awaitable[Pins]]
ReadIntents = Callable[[], Awaitable[Collection[str]]]
BATCH = 200
#: Content stays in quarantine at least so long: a PUT that checked its blobs before and hangs is over by then.
SETTLE_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionPolicy:
    """`grace_seconds` without a reference make a blob a candidate; `keep_seconds` in quarantine free it."""

    grace_seconds: float = 86400.0
    keep_seconds: float = 86400.0
    batch: int = BATCH


@dataclass(slots=True, kw_only=True)
class CollectionResult:
    """What one collection did, in blobs and bytes; of a dry run, what it would do."""

    candidates: int = 0
    candidate_bytes: int = 0
    quarantined: int = 0
    restored: int = 0
    removed: int = 0
    freed_bytes: int = 0
    untagged_removed: int = 0
    damaged: list[str] = field(default_factory=list)
    broken_tags: list[str] = field(default_factory=list)
    mark_seconds: float = 0.0
    mark_cpu_seconds: float = 0.0


class Sweep:
    """One registry's storage. `pins`, `mounted` and `intents` are asked at every look; `clock` gives seconds since the
    epoch.
    """

    def __init__(
        self,
        storage: RegistryStorage,
        *,
        pins: ReadPins,
        intents: ReadIntents,
        policy: CollectionPolicy,
        mounted: ReadPins | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._pins = pins
        self._mounted = mounted
        self._intents = intents
        self._policy = policy
        self._clock = clock
        self._since = UnreferencedSince(storage.root / "collector")
        self._unlinked_before: set[tuple[str, str]] = set()

    async def mark(self) -> Mark:
        """What is referenced now; every manifest is read and hashed anew. Not in the background: what was set aside
        wrongly waits for this look."""
        return await asyncio.to_thread(self._mark, await self._pins(), await self._mounted_blobs())

    async def plan(self) -> tuple[Mark, list[BlobState], CollectionResult]:
        """A dry run: the mark, all blobs, and what a collection would set aside now. Changes nothing."""
        result = CollectionResult()
        mark, blobs = await self._marked(result)
        candidates, _ = await in_background(self._candidates, mark, blobs, remember=False)
        _count(candidates, result)
        return mark, blobs, result

    async def collect(self, *, keep_seconds: float | None = None, step: Step = untold) -> CollectionResult:
        """One collection. `keep_seconds` overrides how long quarantine lasts (0: free at once what is set aside)."""
        result = CollectionResult()
        step("marking", 0, 0, 0)
        mark, blobs = await self._marked(result)
        await self._bring_back(mark, (blob.digest for blob in blobs if blob.quarantined_bytes is not None), result)
        await self._relink(mark)
        await in_background(self._drop_tags, mark)
        candidates, untagged = await in_background(self._candidates, mark, blobs, remember=True)
        _count(candidates, result)
        for start in range(0, len(candidates), self._policy.batch):
            step("quarantining", start, len(candidates), 0)
            await self._quarantine(candidates[start : start + self._policy.batch], result)
        result.untagged_removed = await self._unlink_untagged(untagged)
        await self._free(self._policy.keep_seconds if keep_seconds is None else keep_seconds, result, step)
        return result

    # ---- mark ----

    async def _marked(self, result: CollectionResult) -> tuple[Mark, list[BlobState]]:
        pins, mounted = await self._pins(), await self._mounted_blobs()
        started = time.monotonic()
        mark, result.mark_cpu_seconds = await in_background(self._timed_mark, pins, mounted)
        result.mark_seconds = time.monotonic() - started
        result.damaged = sorted({f"{repository}@sha256:{digest}" for repository, digest in mark.damaged})
        result.broken_tags = sorted(f"{repository}:{tag}" for repository, tag in mark.broken_tags)
        return mark, await in_background(lambda: list(self._storage.blobs()))

    async def _mounted_blobs(self) -> Pins:
        """Blobs behind mounted layers: a range's containers stand on them."""
        return await self._mounted() if self._mounted is not None else frozenset()

    def _timed_mark(self, pins: Pins, mounted: Pins) -> tuple[Mark, float]:
        """The mark, and the processor time of this thread that it took."""
        before = time.thread_time()
        mark = self._mark(pins, mounted)
        return mark, time.thread_time() - before

    def _mark(self, pins: Pins, mounted: Pins) -> Mark:
        self._storage.forget_manifests()
        mark = Mark()
        for name in self._storage.repository_names():
            mark_repository(
                mark,
                self._storage.repository(name),
                self._storage.manifest,
                pins=pins,
                grace_seconds=self._policy.grace_seconds,
                now=self._clock(),
            )
        for digest in mounted:
            mark.needs(digest)
        return mark

    # ---- candidates ----

    def _candidates(
        self, mark: Mark, blobs: list[BlobState], *, remember: bool
    ) -> tuple[list[BlobState], list[tuple[str, str]]]:
        """Blobs that may be set aside, and manifests without a tag whose link may go."""
        loose = [blob for blob in blobs if blob.size_bytes is not None and blob.digest not in mark.live]
        linking = self._storage.linking(frozenset(blob.digest for blob in loose))
        old = [blob for blob in loose if not self._is_young(blob, linking[blob.digest])]
        names = [blob.digest for blob in old] + [f"{repository}@{digest}" for repository, digest in mark.untagged]
        ripe = self._since.ripe(names, now=self._clock(), grace_seconds=self._policy.grace_seconds, remember=remember)
        return (
            [blob for blob in old if blob.digest in ripe],
            [(repository, digest) for repository, digest in mark.untagged if f"{repository}@{digest}" in ripe],
        )

    def _is_young(self, blob: BlobState, repositories: Collection[str]) -> bool:
        """Uploaded or linked within the grace: a push may be on its way to its manifest."""
        times = [blob.changed_at, *(self._storage.linked_at(name, blob.digest) for name in repositories)]
        return self._clock() - max(times) < self._policy.grace_seconds

    # ---- quarantine ----

    async def _quarantine(self, blobs: list[BlobState], result: CollectionResult) -> None:
        """Set one batch aside, then look again."""
        wanted = await self._announced()
        chosen = [blob.digest for blob in blobs if blob.digest not in wanted]
        began = self._clock()
        moved = await asyncio.to_thread(
            lambda: [digest for digest in chosen if self._storage.quarantine(digest, began)]
        )
        if not moved:
            return
        result.quarantined += len(moved)
        wanted = await self._announced()
        linked = await asyncio.to_thread(self._linked_since, moved, began)
        for digest in moved:
            if digest in wanted or digest in linked:
                result.restored += await asyncio.to_thread(self._storage.restore, digest)
        await self._bring_back(await self.mark(), moved, result)

    def _linked_since(self, digests: list[str], began: float) -> set[str]:
        """Those that some repository linked since `began`, less a second for clocks of file systems."""
        linking = self._storage.linking(frozenset(digests))
        return {
            digest
            for digest, names in linking.items()
            if any(self._storage.linked_at(name, digest) >= began - 1.0 for name in names)
        }

    async def _bring_back(self, mark: Mark, quarantined: Iterable[str], result: CollectionResult) -> None:
        """What is set aside and referenced after all comes back; a copy beside a newer upload goes."""

        def bring() -> int:
            back = 0
            for digest in quarantined:
                if digest in mark.live:
                    back += self._storage.restore(digest, frozenset(mark.live[digest]))
                elif self._storage.blob(digest).size_bytes is not None:
                    self._storage.restore(digest)
            return back

        result.restored += await asyncio.to_thread(bring)

    async def _relink(self, mark: Mark) -> None:
        """Write the revision link that a tag lacks, if it lacked it at the last run too: an API DELETE by somebody else
        takes the link a moment before it takes the tag."""
        missing = set(mark.unlinked)
        for repository, digest in missing & self._unlinked_before:
            if (await asyncio.to_thread(self._storage.blob, digest)).size_bytes is not None:
                await asyncio.to_thread(self._storage.relink_revision, repository, digest)
        self._unlinked_before = missing

    # ---- removal ----

    def _drop_tags(self, mark: Mark) -> None:
        for name in self._storage.repository_names():
            self._storage.settle_tags(name)
        for repository, tag in mark.ended:
            self._storage.drop_tag(repository, tag)

    async def _unlink_untagged(self, untagged: list[tuple[str, str]]) -> int:
        wanted = await self._announced()
        gone = 0
        for repository, digest in untagged:
            if digest not in wanted:
                gone += await asyncio.to_thread(self._storage.unlink_revision, repository, digest)
        return gone

    async def _free(self, keep_seconds: float, result: CollectionResult, step: Step) -> None:
        """Free what has been in quarantine long enough and is still unreferenced."""
        blobs = await asyncio.to_thread(lambda: list(self._storage.blobs()))
        now = self._clock()
        due = [b.digest for b in blobs if b.quarantined_bytes is not None and now - b.quarantined_at >= keep_seconds]
        if not due:
            return
        mark = await self.mark()
        await self._bring_back(mark, due, result)
        wanted = await self._announced()
        due = [digest for digest in due if digest not in mark.live and digest not in wanted]
        linking = await asyncio.to_thread(self._storage.linking, frozenset(due))
        for number, digest in enumerate(due):
            step("freeing", number, len(due), result.freed_bytes)
            freed = await asyncio.to_thread(self._storage.discard, digest, linking[digest])
            result.removed += freed > 0
            result.freed_bytes += freed

    async def _announced(self) -> frozenset[str]:
        return frozenset(digest.removeprefix("sha256:") for digest in await self._intents())


def _count(candidates: list[BlobState], result: CollectionResult) -> None:
    result.candidates = len(candidates)
    result.candidate_bytes = sum(blob.size_bytes or 0 for blob in candidates)
