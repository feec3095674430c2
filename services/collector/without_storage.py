"""Role `collector` without the registry's storage folder: deletion, retention and figures through the registry's API.

Object storage (S3) is no folder in which content could be set aside, so nothing is collected here: the registry's own
`garbage-collect` does that in a maintenance window (docs/registry-storage.md). Whoever asks for it is told so.

A tag that shares its manifest with another one cannot be deleted through the API of distribution 2.8 (400), and a
deletion by digest takes every tag. So such a tag is first pointed at a small manifest of its own, which is deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

import msgspec

from events.bus import BusClient, BusError, Delivery, Outcome, Post
from events.envelope import Envelope
from events.messages import (
    CheckRequested,
    CollectRequested,
    DeletionPlanned,
    Failure,
    ImageDeleted,
    ImageDeleteRefused,
    ImageDeleteRequested,
    Message,
    RegistryCollected,
    RegistryRestored,
    RestoreRequested,
    RetentionPlanned,
    RetentionRequested,
)
from events.records import ANY, load_all
from events.streams import Streams
from events.subscription import Handlers, Subscription
from services.collector.registry_survey import Survey, manifest_content, survey
from services.collector.retention import DELETIONS_LIMIT
from services.core.images.manifests import OCI_CONFIG, Descriptor, Manifest, sha256
from services.core.images.read_model import ReadModelKeys
from services.core.images.references import Reference
from services.core.store.figures import details_key, exclusive_blobs, figures_key, image_blobs
from services.core.store.retention import RetentionRules, StoredTag, retention_key, verdicts
from services.ports import Registry
from services.queries.image_users import all_image_users, image_users
from services.runtime.telemetry import get_logger

_TOLD = 1000
NOT_HERE = Failure(
    code="no_storage_folder",
    message="the registry's storage is no folder of this host, so content can be neither collected nor restored here:"
    " collect it with the registry's own `garbage-collect` in a maintenance window (docs/registry-storage.md)",
)


class ApiCollector:
    """One replica. `period_seconds`: how often the rules are applied and the figures are taken; 0: by hand."""

    name = "collector"

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        registry: Registry,
        period_seconds: float,
        lease_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._registry = registry
        self._period = period_seconds
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._log = get_logger(role=self.name)

    def subscriptions(self) -> Sequence[Subscription]:
        return (
            Subscription(
                group=self.name,
                streams=lambda: (self._streams.images,),
                handlers=Handlers()
                .on(CollectRequested, self._collect, key=lambda _: "collect", give_up=self._collect_failed)
                .on(ImageDeleteRequested, self._delete, key=lambda one: one.message.reference, give_up=self._refused)
                .on(RestoreRequested, self._restore, key=None, give_up=None)
                .on(CheckRequested, self._check, key=None, give_up=None)
                .on(RetentionRequested, self._retain, key=lambda _: "retention", give_up=self._retention_failed),
                slots=4,
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
            ),
        )

    async def run(self) -> None:
        """Have the rules applied and the figures taken, once in every period."""
        self._log.warning("there is no storage folder", collection="by the registry's own garbage-collect")
        while self._period:
            number = int(self._clock() // self._period)
            scheduled: tuple[Message, ...] = (RetentionRequested(), CollectRequested(dry_run=True))
            names = [str(uuid5(NAMESPACE_URL, f"{type(one).__name__}/{number}")) for one in scheduled]
            with suppress(BusError):  # Redis is unavailable: the next round
                await self._bus.publish(
                    self._streams.images,
                    *(
                        Envelope(id=name, message=one, source=self.name, subject="registry")
                        for name, one in zip(names, scheduled, strict=True)
                    ),
                )
            await asyncio.sleep(max(1.0, (number + 1) * self._period - self._clock()))

    # ---- figures, and what needs the files ----

    async def _collect(self, delivery: Delivery[CollectRequested]) -> Outcome:
        """A dry run takes the figures; anything else is refused."""
        if not delivery.message.dry_run:
            return self._collect_failed(delivery, NOT_HERE)
        began = time.monotonic()
        measured = (await survey(self._registry)).measured(datetime.fromtimestamp(self._clock(), UTC))
        prefix = self._streams.prefix
        said = RegistryCollected(dry_run=True, seconds=round(time.monotonic() - began, 3))
        records = (
            figures_key(prefix).write(measured.figures, expected=ANY),
            details_key(prefix).write(measured.details, expected=ANY),
        )
        return Outcome(posts=(self._post(delivery.envelope, said),), records=records)

    def _collect_failed(self, delivery: Delivery[CollectRequested], failure: Failure) -> Outcome:
        said = RegistryCollected(dry_run=delivery.message.dry_run, error=failure)
        return Outcome(posts=(self._post(delivery.envelope, said),))

    async def _restore(self, delivery: Delivery[RestoreRequested]) -> Outcome:
        return Outcome(posts=(self._post(delivery.envelope, RegistryRestored(error=NOT_HERE)),))

    async def _check(self, delivery: Delivery[CheckRequested]) -> Outcome:
        """A blob that a push found damaged can only be told."""
        self._log.warning(
            "the registry has damaged blobs, which only its storage can be rid of", blobs=delivery.message
        )
        return Outcome()

    # ---- deletion ----

    async def _delete(self, delivery: Delivery[ImageDeleteRequested]) -> Outcome:
        request, reference = delivery.message, Reference.parse(delivery.message.reference)
        repository = reference.repository
        content = await manifest_content(self._registry, repository, reference.registry_tag)
        by_digest = content is None and reference.digest is not None
        found = await survey(self._registry) if content is not None or by_digest else Survey()
        digest = content[0] if content is not None else (reference.digest or "").removeprefix("sha256:")
        same = sorted(tag for (place, tag), one in found.mark.tagged.items() if (place, one) == (repository, digest))
        tags = same if by_digest else [one for one in same if one == reference.registry_tag]
        if not tags:
            return self._refuse(delivery, "not_found", "the registry has no such tag or digest")
        if request.manifest_digest not in (None, f"sha256:{digest}"):
            return self._refuse(delivery, "rebuilt", f"the tag names sha256:{digest} now")
        users = await self._users(repository, tags)
        places = [(repository, tag) for tag in tags]
        own = exclusive_blobs(found.mark, found.links.get, digest, places)
        freed = sum(found.sizes.get(one, 0) for one in own)
        if request.dry_run:
            said = DeletionPlanned(
                reference=str(reference),
                manifest_digest=f"sha256:{digest}",
                tags=tuple(tags),
                siblings=tuple(one for one in same if one not in tags),
                needed_by=tuple(users),
                held_by=await self._holders(found, digest),
                freed_later_bytes=freed,
            )
            return Outcome(posts=(self._post(delivery.envelope, said, str(reference)),))
        if users and not request.force:
            return self._refuse(delivery, "in_use", f"it is needed: {', '.join(users)}; force deletes it all the same")
        await self._take_away(repository, digest, tags, alone=tags == same)
        deleted = ImageDeleted(
            reference=str(reference), manifest_digest=f"sha256:{digest}", freed_bytes=freed, tags=tuple(tags)
        )
        return Outcome(posts=(self._post(delivery.envelope, deleted, str(reference)),))

    async def _take_away(self, repository: str, digest: str, tags: Sequence[str], *, alone: bool) -> None:
        """`alone`: no other tag names the manifest, so it may go as a whole."""
        if alone:
            await self._registry.delete_manifest(repository, f"sha256:{digest}")
            return
        for tag in tags:
            config = msgspec.json.encode({"deleted": tag, "manifest": digest, "at": self._clock()})
            await self._registry.put_blob(repository, sha256(config), len(config), _once(config))
            described = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
            placeholder = Manifest.write(described, ())
            await self._registry.put_manifest(repository, tag, placeholder)
            await self._registry.delete_manifest(repository, placeholder.digest)

    async def _users(self, repository: str, tags: Sequence[str]) -> list[str]:
        named = [Reference.from_registry(repository, tag) for tag in tags]
        found = [await image_users(self._bus, self._streams, str(one)) for one in named if one is not None]
        return list(dict.fromkeys(user for users in found for user in users))

    async def _holders(self, found: Survey, digest: str) -> tuple[str, ...]:
        links = found.links.get(digest)
        config = links.blobs[0] if links and links.blobs else ""
        return tuple(await self._bus.members(ReadModelKeys(self._streams.prefix).holders(f"sha256:{config}")))

    def _refused(self, delivery: Delivery[ImageDeleteRequested], failure: Failure) -> Outcome:
        reference = delivery.message.reference
        said = ImageDeleteRefused(reference=reference, error=failure)
        return Outcome(posts=(self._post(delivery.envelope, said, reference),))

    def _refuse(self, delivery: Delivery[ImageDeleteRequested], code: str, why: str) -> Outcome:
        message = f"{delivery.message.reference} was not deleted: {why}"
        return self._refused(delivery, Failure(code=code, message=message))

    # ---- retention ----

    async def _retain(self, delivery: Delivery[RetentionRequested]) -> Outcome:
        """As with a storage folder, but for pulls, which leave no trace that the API shows."""
        dry_run = delivery.message.dry_run
        rules = (await retention_key(self._streams.prefix).load(self._bus)).value or RetentionRules()
        found = await survey(self._registry)
        tags = await self._tags(found, await all_image_users(self._bus, self._streams))
        told = verdicts(rules, tags, found.sizes, self._clock())
        gone = [one for one in told if not one.keep]
        chosen = () if dry_run else gone[:DELETIONS_LIMIT]
        said = RetentionPlanned(
            dry_run=dry_run,
            kept=len(told) - len(gone),
            deleted=len(gone) if dry_run else len(chosen),
            freed_bytes=sum(one.freed_bytes for one in (gone if dry_run else chosen)),
            verdicts=tuple((told if dry_run else gone)[:_TOLD]),
        )
        posts = [self._post(delivery.envelope, said)]
        for one in chosen:
            command = ImageDeleteRequested(reference=one.reference, manifest_digest=one.manifest_digest)
            name = str(uuid5(NAMESPACE_URL, f"retention/{delivery.envelope.id}/{one.reference}"))
            post = self._post(delivery.envelope, command, one.reference)
            posts.append(Post(post.stream, post.envelope.with_id(name)))
        return Outcome(posts=tuple(posts))

    async def _tags(self, found: Survey, users: Mapping[str, list[str]]) -> list[StoredTag]:
        """A tag that the read model does not know was pushed by somebody else, nobody knows when: it counts as new."""
        keys, now = ReadModelKeys(self._streams.prefix), self._clock()
        named = [(Reference.from_registry(*place), place[0], one) for place, one in found.mark.tagged.items()]
        known = [(str(reference), repository, one) for reference, repository, one in named if reference is not None]
        entries = await load_all(self._bus, [keys.image(reference) for reference, _, _ in known])
        uses = await load_all(self._bus, [keys.use(reference) for reference, _, _ in known])
        tags = []
        for (reference, repository, manifest), entry, use in zip(known, entries, uses, strict=True):
            pushed_at = entry.value.pushed_at.timestamp() if entry.value is not None else now
            used_at = use.value.deployed_at.timestamp() if use.value is not None else 0.0
            tags.append(
                StoredTag(
                    reference=reference,
                    repository=repository,
                    manifest=manifest,
                    pushed_at=pushed_at,
                    used_at=max(pushed_at, used_at),
                    blobs=image_blobs(manifest, found.links.get),
                    needed_by=tuple(users.get(reference, ())),
                )
            )
        return tags

    def _retention_failed(self, delivery: Delivery[RetentionRequested], failure: Failure) -> Outcome:
        said = RetentionPlanned(dry_run=delivery.message.dry_run, error=failure)
        return Outcome(posts=(self._post(delivery.envelope, said),))

    def _post(self, cause: Envelope, message: Message, subject: str = "registry") -> Post:
        return Post(self._streams.images, cause.causes(message, source=self._source, subject=subject))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
