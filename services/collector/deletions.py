"""Deletion of tags, by name or by digest: what goes, who needs it, and the bytes once a collection has freed them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from events.bus import BusClient, Delivery, IndexWrite, Outcome, Post
from events.envelope import Envelope
from events.messages import DeletionPlanned, Failure, ImageDeleted, ImageDeleteRefused, ImageDeleteRequested
from events.records import ANY, load_values
from events.streams import Streams
from services.collector.background import in_background
from services.collector.measure import stored_sizes
from services.collector.storage import RegistryStorage
from services.collector.sweep import Sweep
from services.core.images.manifests import sha256
from services.core.images.read_model import ReadModelKeys
from services.core.images.references import Reference
from services.core.store.deletions import BlobFate, DeletionKeys, PendingDeletion, settled
from services.core.store.figures import exclusive_blobs, image_blobs
from services.core.store.mark import Mark
from services.queries.image_users import image_users
from services.runtime.telemetry import get_logger

_PAGE = 500


@dataclass(frozen=True, slots=True)
class _Target:
    """What a command names: `tags` are there, `done` are those that this very command deleted already."""

    repository: str
    digest: str
    tags: tuple[str, ...]
    done: tuple[str, ...] = ()

    @property
    def places(self) -> list[tuple[str, str]]:
        return [(self.repository, tag) for tag in self.tags]


class Deletions:
    """Answers `image.delete_requested`; `settle` tells after a collection what was freed."""

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
        self._keys = DeletionKeys(streams.prefix)
        self._source = source
        self._storage = storage
        self._sweep = sweep
        self._clock = clock
        self._log = get_logger(role="collector")

    async def requested(self, delivery: Delivery[ImageDeleteRequested]) -> Outcome:
        request = delivery.message
        reference = Reference.parse(request.reference)
        command_id = file_safe(delivery.envelope.id)
        target = await asyncio.to_thread(self._target, reference, command_id)
        if target is None:
            return self._refused(delivery, "not_found", "the registry has no such tag or digest")
        digest = f"sha256:{target.digest}"
        if request.manifest_digest not in (None, digest):
            return self._refused(delivery, "rebuilt", f"the tag names {digest} now: look at it again, then delete it")
        mark, blobs, _ = await self._sweep.plan()
        own = await in_background(exclusive_blobs, mark, self._storage.manifest, target.digest, target.places)
        sizes = stored_sizes(blobs)
        freed = {name: sizes[name] for name in sorted(own) if name in sizes}
        users = await self._users(target)
        if request.dry_run:
            said = await self._planned(target, mark, users, str(reference), sum(freed.values()))
            return Outcome(posts=(self._post(delivery.envelope, said, str(reference)),))
        if users and not request.force and not target.done:
            return self._refused(delivery, "in_use", f"it is needed: {', '.join(users)}; force deletes it all the same")
        gone = [tag for tag in target.tags if await self._delete(target, tag, command_id)]
        if target.tags and not gone and not target.done:
            return self._refused(delivery, "rebuilt", "the tag was pushed at this very moment: look at it again")
        self._log.info("deleted", image=str(reference), manifest=digest, bytes_to_be_freed=sum(freed.values()))
        return self._deleted(delivery.envelope, reference, digest, tuple(sorted({*gone, *target.done})), freed)

    def failed(self, delivery: Delivery[ImageDeleteRequested], failure: Failure) -> Outcome:
        """Whoever waits for the deletion gets its failure."""
        reference = delivery.message.reference
        said = ImageDeleteRefused(reference=reference, error=failure)
        return Outcome(posts=(self._post(delivery.envelope, said, reference),))

    async def settle(self, mark: Mark) -> Outcome:
        """After a collection: the deletions whose bytes are gone, told with what was freed. Raises BusError."""
        ids = await self._bus.members(self._keys.all)
        pending: list[PendingDeletion] = []
        for start in range(0, len(ids), _PAGE):
            pending += await load_values(self._bus, [self._keys.record(one) for one in ids[start : start + _PAGE]])
        if not pending:
            return Outcome()
        over, changed = await in_background(self._settled, pending, mark)
        over, changed = over[:_PAGE], [*changed, *over[_PAGE:]]
        return Outcome(
            posts=tuple(self._collected(one) for one in over),
            records=(
                *(self._keys.record(one.id).delete(expected=ANY) for one in over),
                *(self._keys.record(one.id).write(one, expected=ANY) for one in changed),
            ),
            index=tuple(IndexWrite(self._keys.all, one.id, None) for one in over),
        )

    # ---- inside ----

    def _target(self, reference: Reference, command_id: str) -> _Target | None:
        """The tag of that name; for a digest without a tag of its own, all tags that name it."""
        repository, own = reference.repository, reference.registry_tag
        tags = self._storage.repository(repository).tags
        done = self._storage.deleted_by(repository, own, command_id)
        if done is not None:  # the collector ended before it could say so; the tag may have been pushed again since
            return _Target(repository, done, (), (own,))
        if own in tags and (current := tags[own].current) is not None:
            return _Target(repository, current, (own,))
        if reference.digest is None:
            return None
        digest = reference.digest.removeprefix("sha256:")
        there = tuple(sorted(tag for tag, state in tags.items() if state.current == digest))
        gone = tuple(tag for tag in tags if self._storage.deleted_by(repository, tag, command_id) == digest)
        return _Target(repository, digest, there, gone) if there or gone else None

    async def _users(self, target: _Target) -> list[str]:
        found: list[str] = []
        for tag in target.tags:
            named = Reference.from_registry(target.repository, tag)
            found += await image_users(self._bus, self._streams, str(named)) if named else []
        return list(dict.fromkeys(found))

    async def _delete(self, target: _Target, tag: str, command_id: str) -> bool:
        return await asyncio.to_thread(
            self._storage.delete_tag, target.repository, tag, target.digest, command_id=command_id
        )

    async def _planned(
        self, target: _Target, mark: Mark, users: list[str], reference: str, freed_bytes: int
    ) -> DeletionPlanned:
        links = self._storage.manifest(target.digest)
        config = links.blobs[0] if links and links.blobs else ""
        return DeletionPlanned(
            reference=reference,
            manifest_digest=f"sha256:{target.digest}",
            tags=target.tags,
            siblings=tuple(
                sorted(
                    tag
                    for (repository, tag), manifest in mark.tagged.items()
                    if repository == target.repository and manifest == target.digest and tag not in target.tags
                )
            ),
            needed_by=tuple(users),
            held_by=tuple(await self._bus.members(ReadModelKeys(self._streams.prefix).holders(f"sha256:{config}"))),
            freed_later_bytes=freed_bytes,
        )

    def _deleted(
        self, cause: Envelope, reference: Reference, digest: str, tags: tuple[str, ...], freed: dict[str, int]
    ) -> Outcome:
        """The answer, one event for each tag of a digest, and a note of what is still to be collected."""
        pending = PendingDeletion(
            id=file_safe(cause.id),
            reference=str(reference),
            manifest_digest=digest,
            deleted_at=self._clock(),
            blobs=freed,
            tags=tags,
            correlation_id=cause.correlation_id,
            caused_by=cause.id,
        )
        said = ImageDeleted(
            reference=str(reference), manifest_digest=digest, freed_bytes=sum(freed.values()), tags=tags
        )
        posts = [self._post(cause, said, str(reference))]
        for tag in tags:
            named = Reference.from_registry(reference.repository, tag)
            if named is not None and named != reference:
                one = ImageDeleted(reference=str(named), manifest_digest=digest)
                posts.append(self._post(cause, one, str(named)))
        return Outcome(
            posts=tuple(posts),
            records=(self._keys.record(pending.id).write(pending, expected=ANY),),
            index=(IndexWrite(self._keys.all, pending.id, pending.deleted_at),),
        )

    def _settled(
        self, pending: list[PendingDeletion], mark: Mark
    ) -> tuple[list[PendingDeletion], list[PendingDeletion]]:
        needed: set[str] = set()
        for manifest in set(mark.tagged.values()):
            needed |= image_blobs(manifest, self._storage.manifest)

        def fate(digest: str) -> BlobFate:
            if digest in needed:
                return "needed"
            blob = self._storage.blob(digest)
            return "freed" if blob.size_bytes is None and blob.quarantined_bytes is None else "there"

        return settled(pending, fate)

    def _collected(self, deletion: PendingDeletion) -> Post:
        said = ImageDeleted(
            reference=deletion.reference,
            manifest_digest=deletion.manifest_digest,
            freed_bytes=deletion.freed_bytes,
            collected=True,
            tags=deletion.tags,
        )
        envelope = Envelope(
            message=said,
            source=self._source,
            subject=deletion.reference,
            correlation_id=deletion.correlation_id,
            causation_id=deletion.caused_by,
        )
        return Post(self._streams.images, envelope)

    def _refused(self, delivery: Delivery[ImageDeleteRequested], code: str, why: str) -> Outcome:
        return self.failed(delivery, Failure(code=code, message=f"{delivery.message.reference} was not deleted: {why}"))

    def _post(
        self, cause: Envelope, message: ImageDeleted | ImageDeleteRefused | DeletionPlanned, subject: str
    ) -> Post:
        return Post(self._streams.images, cause.causes(message, source=self._source, subject=subject))


def file_safe(command_id: str) -> str:
    """A command's id as part of a file name: other services choose theirs freely."""
    return sha256(command_id.encode()).removeprefix("sha256:")
