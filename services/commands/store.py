"""Commands about the registry's store: delete, collect, restore, apply retention. Each waits for its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from events.bus import BusClient
from events.messages import (
    CollectProgress,
    CollectRequested,
    DeletionPlanned,
    ImageDeleted,
    ImageDeleteRefused,
    ImageDeleteRequested,
    RegistryCollected,
    RegistryRestored,
    RestoreRequested,
    RetentionPlanned,
    RetentionRequested,
    RetentionVerdict,
)
from events.streams import Streams
from services.commands.request_reply import RequestReplyClient, answer, refusal
from services.core.images.references import Reference
from services.queries.progress import recently


async def collect(bus: BusClient, streams: Streams, command: CollectRequested, *, source: str) -> RegistryCollected:
    """Ask for a collection and wait for its end; end the waiting by cancelling. Raises BusError."""
    return await answer(bus, streams, command, RegistryCollected, source=source)


async def delete_image(
    bus: BusClient, streams: Streams, reference: str, *, source: str, force: bool = False
) -> ImageDeleted | ImageDeleteRefused:
    """Ask for a tag, or all tags of a digest, to be deleted and wait for the answer. Raises BadReference, BusError."""
    command = ImageDeleteRequested(reference=str(Reference.parse(reference)), force=force)
    return await answer(bus, streams, command, ImageDeleted, ImageDeleteRefused, source=source)


async def plan_deletion(
    bus: BusClient, streams: Streams, reference: str, *, source: str
) -> DeletionPlanned | ImageDeleteRefused:
    """What a deletion would do, or why there is nothing to delete. Raises BadReference, BusError."""
    command = ImageDeleteRequested(reference=str(Reference.parse(reference)), dry_run=True)
    return await answer(bus, streams, command, DeletionPlanned, ImageDeleteRefused, source=source)


async def collection_steps(bus: BusClient, streams: Streams) -> AsyncGenerator[CollectProgress, None]:
    """How far the collection is that runs, step by step and without an end. Raises BusError."""
    async with aclosing(bus.tail((streams.progress,), after=recently())) as tail:
        async for entry in tail:
            if entry.envelope is not None and isinstance(entry.envelope.message, CollectProgress):
                yield entry.envelope.message


# ---- views, and refusals as errors; `ended` is false where the collector has not answered yet ----


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted, or would be (`deleted` false). `needed_by`, `siblings` and `held_by` are told by a dry run."""

    reference: str
    manifest_digest: str | None = None
    deleted: bool = False
    ended: bool = True
    tags: tuple[str, ...] = ()
    siblings: tuple[str, ...] = ()
    needed_by: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()
    freed_now_bytes: int = 0
    freed_later_bytes: int = 0


async def deletion(call: RequestReplyClient, command: ImageDeleteRequested) -> Deletion:
    """Raises BadInput for one that is refused."""
    said = await call.ask(command, DeletionPlanned, ImageDeleted, ImageDeleteRefused)
    if isinstance(said, ImageDeleteRefused):
        raise refusal(said.error)
    if isinstance(said, ImageDeleted):
        return Deletion(
            reference=said.reference,
            manifest_digest=said.manifest_digest,
            deleted=True,
            tags=said.tags,
            freed_later_bytes=said.freed_bytes,
        )
    if isinstance(said, DeletionPlanned):
        return Deletion(
            reference=said.reference,
            manifest_digest=said.manifest_digest,
            tags=said.tags,
            siblings=said.siblings,
            needed_by=said.needed_by,
            held_by=said.held_by,
            freed_now_bytes=said.freed_now_bytes,
            freed_later_bytes=said.freed_later_bytes,
        )
    return Deletion(reference=command.reference, ended=False)


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection did, or would do."""

    dry_run: bool
    ended: bool = True
    candidates: int = 0
    candidate_bytes: int = 0
    quarantined: int = 0
    restored: int = 0
    removed: int = 0
    freed_bytes: int = 0
    damaged: tuple[str, ...] = ()
    seconds: float = 0.0


async def collection(call: RequestReplyClient, command: CollectRequested) -> Collection:
    """Raises BadInput for a registry that cannot be collected."""
    said = await call.accepted(command, RegistryCollected)
    if said is None:
        return Collection(dry_run=command.dry_run, ended=False)
    return Collection(
        dry_run=said.dry_run,
        candidates=said.candidates,
        candidate_bytes=said.candidate_bytes,
        quarantined=said.quarantined,
        restored=said.restored,
        removed=said.removed,
        freed_bytes=said.freed_bytes,
        damaged=said.damaged,
        seconds=said.seconds,
    )


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from quarantine, and what of it was not there any more."""

    restored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ended: bool = True


async def restoration(call: RequestReplyClient, command: RestoreRequested) -> Restored:
    """Raises BadInput."""
    said = await call.accepted(command, RegistryRestored)
    if said is None:
        return Restored(ended=False)
    return Restored(restored=said.restored, missing=said.missing)


class RetentionView(msgspec.Struct, frozen=True, kw_only=True):
    """What the retention rules keep and delete, with the reason for each tag."""

    dry_run: bool
    ended: bool = True
    kept: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    verdicts: tuple[RetentionVerdict, ...] = ()


async def retention(call: RequestReplyClient, command: RetentionRequested) -> RetentionView:
    """Raises BadInput."""
    said = await call.accepted(command, RetentionPlanned)
    if said is None:
        return RetentionView(dry_run=command.dry_run, ended=False)
    return RetentionView(
        dry_run=said.dry_run,
        kept=said.kept,
        deleted=said.deleted,
        freed_bytes=said.freed_bytes,
        verdicts=said.verdicts,
    )
