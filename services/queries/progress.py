"""Progress follower: follows a deployment, or pushes, on the streams until the end, and reports progress."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing

from events.bus import BusClient, Tailed
from events.messages import (
    DeploymentCancelled,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentRequested,
    DeploymentSucceeded,
    ImagePushed,
    ImagePushFailed,
    TransferProgress,
)
from events.streams import Streams

#: Reading begins this much before now, by this machine's clock: Redis' own may be a little behind.
SKEW_SECONDS = 60.0
OnProgress = Callable[[TransferProgress], None]
OnNote = Callable[[str], None]


def recently() -> str:
    """The entry id of a moment shortly before now, from which a new command's entries are read."""
    return f"{int((time.time() - SKEW_SECONDS) * 1000)}-0"


async def watch(
    bus: BusClient, streams: Streams, request: DeploymentRequested, *, on_progress: OnProgress, on_note: OnNote
) -> DeploymentEnded:
    """Follow a deployment and return its end. Runs as long as the deployment does; end it by cancelling.

    `on_note` gets the deployer's remarks about the deployment as a whole: what it waits for, what it does instead.
    """
    entries = bus.tail((streams.deployments, streams.progress), after=recently())
    async with aclosing(entries) as tail:
        since = None
        async for entry in tail:
            message = entry.envelope.message if entry.envelope else None
            if message == request:
                since = _moment(entry)
            elif isinstance(message, DeploymentSucceeded | DeploymentFailed | DeploymentCancelled):
                if message.deployment_id == request.deployment_id:
                    return message
            elif isinstance(message, TransferProgress):
                of_an_earlier_one = since is None or _moment(entry) < since
                if of_an_earlier_one:
                    continue
                if message.transfer_id == request.deployment_id and message.note:
                    on_note(message.note)
                elif _concerns(message, request):
                    on_progress(message)
    raise RuntimeError("a tail that follows does not end")


def _moment(entry: Tailed) -> int:
    """When Redis added the entry, in Redis's milliseconds."""
    return int(entry.entry_id.partition("-")[0])


def _concerns(progress: TransferProgress, request: DeploymentRequested) -> bool:
    """Whether progress is of this range's transfers, or of pushes of the images that it waits for."""
    if progress.reference not in request.images:
        return False
    return progress.range_id == request.range_id or (progress.range_id is None and progress.kind == "push")


async def watch_pushes(
    bus: BusClient,
    streams: Streams,
    requests: Collection[str],
    *,
    on_progress: OnProgress,
    references: Collection[str],
) -> AsyncIterator[tuple[str, ImagePushed | ImagePushFailed]]:
    """The end of each push by the id of the request that caused it, as they come; ends after the last.

    One image is pushed once at a time, so progress of the same reference that another request began is shown as well.
    """
    left = set(requests)
    if not left:
        return
    entries = bus.tail((streams.images, streams.progress), after=recently())
    async with aclosing(entries) as tail:
        async for entry in tail:
            envelope = entry.envelope
            message = envelope.message if envelope else None
            if envelope is not None and isinstance(message, ImagePushed | ImagePushFailed):
                if envelope.causation_id in left:
                    left.remove(envelope.causation_id)
                    yield envelope.causation_id, message
                    if not left:
                        return
            elif isinstance(message, TransferProgress) and message.kind == "push" and message.reference in references:
                on_progress(message)
