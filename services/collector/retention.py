"""Retention: the rules applied to what the storage holds; each deletion is a command of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import NAMESPACE_URL, uuid5

from events.bus import BusClient, Delivery, Outcome, Post
from events.messages import Failure, ImageDeleteRequested, RetentionPlanned, RetentionRequested
from events.records import load_values
from events.streams import Streams
from services.collector.background import in_background
from services.collector.measure import stored_sizes
from services.collector.storage import RegistryStorage
from services.collector.sweep import Sweep
from services.core.images.read_model import ReadModelKeys
from services.core.images.references import Reference
from services.core.store.figures import image_blobs
from services.core.store.mark import Mark
from services.core.store.retention import RetentionRules, StoredTag, retention_key, verdicts
from services.queries.image_users import all_image_users
from services.runtime.telemetry import get_logger

#: So many tags are deleted at a time; the next run takes what is left.
DELETIONS_LIMIT = 500
_TOLD = 1000
_PAGE = 500


class Retention:
    """Answers `registry.retention_requested`."""

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        storage: RegistryStorage,
        sweep: Sweep,
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._storage = storage
        self._sweep = sweep
        self._clock = clock
        self._log = get_logger(role="collector")

    async def requested(self, delivery: Delivery[RetentionRequested]) -> Outcome:
        rules = (await retention_key(self._streams.prefix).load(self._bus)).value or RetentionRules()
        mark, blobs, _ = await self._sweep.plan()
        users = await all_image_users(self._bus, self._streams)
        tags = await in_background(self._tags, mark, users, await self._deployed(mark))
        told = await in_background(verdicts, rules, tags, stored_sizes(blobs), self._clock())
        gone = [one for one in told if not one.keep]
        chosen = () if delivery.message.dry_run else gone[:DELETIONS_LIMIT]
        said = RetentionPlanned(
            dry_run=delivery.message.dry_run,
            kept=len(told) - len(gone),
            deleted=len(gone) if delivery.message.dry_run else len(chosen),
            freed_bytes=sum(one.freed_bytes for one in (gone if delivery.message.dry_run else chosen)),
            verdicts=tuple((told if delivery.message.dry_run else gone)[:_TOLD]),
        )
        self._log.info("retention", dry_run=said.dry_run, kept=said.kept, deleted=said.deleted)
        commands = (
            ImageDeleteRequested(reference=one.reference, manifest_digest=one.manifest_digest) for one in chosen
        )
        return Outcome(posts=(self._answer(delivery, said), *(self._command(delivery, one) for one in commands)))

    def failed(self, delivery: Delivery[RetentionRequested], failure: Failure) -> Outcome:
        said = RetentionPlanned(dry_run=delivery.message.dry_run, error=failure)
        return Outcome(posts=(self._answer(delivery, said),))

    # ---- inside ----

    async def _deployed(self, mark: Mark) -> dict[str, float]:
        """When each reference was last deployed, as far as that is known."""
        keys = ReadModelKeys(self._streams.prefix)
        named = [str(one) for one in (Reference.from_registry(*place) for place in mark.tagged) if one is not None]
        found: dict[str, float] = {}
        for start in range(0, len(named), _PAGE):
            uses = await load_values(self._bus, [keys.use(one) for one in named[start : start + _PAGE]])
            found |= {use.reference: use.deployed_at.timestamp() for use in uses}
        return found

    def _tags(self, mark: Mark, users: Mapping[str, list[str]], used: Mapping[str, float]) -> list[StoredTag]:
        """Every tag with a name of ours: what a foreign client pushed under another is left alone."""
        found = []
        for (repository, tag), manifest in mark.tagged.items():
            named = Reference.from_registry(repository, tag)
            if named is None:
                continue
            reference = str(named)
            pushed_at = self._storage.pushed_at(repository, tag, manifest)
            links = self._storage.manifest(manifest)
            pulled_at = self._storage.read_at(links.blobs[0]) if links and links.blobs else 0.0
            found.append(
                StoredTag(
                    reference=reference,
                    repository=repository,
                    manifest=manifest,
                    pushed_at=pushed_at,
                    used_at=max(pushed_at, pulled_at, used.get(reference, 0.0)),
                    blobs=image_blobs(manifest, self._storage.manifest),
                    needed_by=tuple(users.get(reference, ())),
                )
            )
        return found

    def _command(self, delivery: Delivery[RetentionRequested], command: ImageDeleteRequested) -> Post:
        """With an id of its own for each tag, so that a run that is repeated asks once."""
        envelope = delivery.envelope.causes(command, source=self._source, subject=command.reference)
        name = f"retention/{delivery.envelope.id}/{command.reference}"
        return Post(self._streams.images, envelope.with_id(str(uuid5(NAMESPACE_URL, name))))

    def _answer(self, delivery: Delivery[RetentionRequested], said: RetentionPlanned) -> Post:
        return Post(self._streams.images, delivery.envelope.causes(said, source=self._source, subject="registry"))
