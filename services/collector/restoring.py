"""Restoring from quarantine, and checking blobs that a push found damaged: commands about single blobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from events.bus import BusClient, Delivery, Outcome, Post
from events.messages import CheckRequested, Failure, RegistryRestored, RestoreRequested
from events.records import ANY
from events.streams import Streams
from services.collector.background import in_background
from services.collector.repairs import repairs
from services.collector.scrub import Scrub
from services.collector.storage import BlobState, RegistryStorage
from services.collector.sweep import Sweep
from services.core.store.figures import image_blobs
from services.core.store.quarantine import Quarantine, QuarantinedBlob, quarantine, quarantine_key
from services.runtime.telemetry import get_logger


class Restoring:
    """`keep_seconds`: how long quarantine lasts by the collector's policy."""

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        storage: RegistryStorage,
        sweep: Sweep,
        scrub: Scrub,
        keep_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._storage = storage
        self._sweep = sweep
        self._scrub = scrub
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._log = get_logger(role="collector")

    def listed(self, blobs: Iterable[BlobState]) -> Quarantine:
        """What is in quarantine, for its record. Blocks."""
        aside = [blob for blob in blobs if blob.quarantined_bytes is not None]
        having = self._storage.having_revisions(frozenset(blob.digest for blob in aside))
        found = [
            QuarantinedBlob(
                digest=f"sha256:{blob.digest}",
                size_bytes=blob.quarantined_bytes or 0,
                since=datetime.fromtimestamp(blob.quarantined_at, UTC),
                until=datetime.fromtimestamp(blob.quarantined_at + self._keep_seconds, UTC),
                repositories=tuple(having[blob.digest]),
            )
            for blob in aside
        ]
        return quarantine(found, datetime.fromtimestamp(self._clock(), UTC))

    async def restore_requested(self, delivery: Delivery[RestoreRequested]) -> Outcome:
        """Bring back what was named; a manifest with all that it names, and as one of its repositories again."""
        names = [digest.removeprefix("sha256:") for digest in delivery.message.digests]
        restored, missing = await asyncio.to_thread(self._restore, names)
        self._log.info("restored from quarantine", blobs=len(restored), missing=len(missing))
        said = RegistryRestored(
            restored=tuple(f"sha256:{one}" for one in restored), missing=tuple(f"sha256:{one}" for one in missing)
        )
        listed = await in_background(lambda: self.listed(list(self._storage.blobs())))
        return Outcome(
            posts=(self._answer(delivery, said),),
            records=(quarantine_key(self._streams.prefix).write(listed, expected=ANY),),
        )

    def failed(self, delivery: Delivery[RestoreRequested], failure: Failure) -> Outcome:
        return Outcome(posts=(self._answer(delivery, RegistryRestored(error=failure)),))

    async def check_requested(self, delivery: Delivery[CheckRequested]) -> Outcome:
        """Hash what a push found to have another size; what is damaged goes, and the images that need it are pushed."""
        mark = await self._sweep.mark()
        named = [self._storage.blob(digest.removeprefix("sha256:")) for digest in delivery.message.digests]
        checked = await self._scrub.scrub(mark, named)
        affected = repairs(delivery.envelope, checked.affected, streams=self._streams, source=self._source)
        return Outcome(posts=affected)

    # ---- inside ----

    def _restore(self, names: list[str]) -> tuple[list[str], list[str]]:
        restored: list[str] = []
        missing: list[str] = []
        for name in names:
            wanted = sorted(image_blobs(name, self._storage.manifest))
            restored += [digest for digest in wanted if self._storage.restore(digest)]
            missing += [digest for digest in wanted if self._storage.blob(digest).size_bytes is None]
            for repository in self._storage.having_revisions(frozenset([name]))[name]:
                self._storage.relink_revision(repository, name)
        return list(dict.fromkeys(restored)), list(dict.fromkeys(missing))

    def _answer(self, delivery: Delivery[RestoreRequested], said: RegistryRestored) -> Post:
        return Post(self._streams.images, delivery.envelope.causes(said, source=self._source, subject="registry"))
