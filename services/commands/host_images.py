"""Commands about images that are there already: adopt, reclaim, fetch. Each waits for the registry-pusher's answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from events.messages import (
    Adoption,
    AdoptRequested,
    FetchRequested,
    ImageFetched,
    ImagesAdopted,
    ImagesReclaimed,
    Reclaim,
    ReclaimRequested,
)
from services.commands.request_reply import RequestReplyClient


class AdoptionView(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken up, or would be; `ended` false: it goes on, and there is no answer yet."""

    dry_run: bool
    ended: bool = True
    new: int = 0
    present: int = 0
    left: int = 0
    size_bytes: int = 0
    missing_bytes: int = 0
    estimated_seconds: float | None = None
    images: Sequence[Adoption] = ()


async def adoption(call: RequestReplyClient, command: AdoptRequested) -> AdoptionView:
    """Raises BadInput for a command that cannot be carried out."""
    said = await call.accepted(command, ImagesAdopted)
    if said is None:
        return AdoptionView(dry_run=command.dry_run, ended=False)
    return AdoptionView(
        dry_run=said.dry_run,
        new=said.new,
        present=said.present,
        left=said.left,
        size_bytes=said.size_bytes,
        missing_bytes=said.missing_bytes,
        estimated_seconds=said.estimated_seconds,
        images=said.images,
    )


class ReclaimView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each copy on the host's engine, or would."""

    dry_run: bool
    ended: bool = True
    freed_bytes: int = 0
    images: Sequence[Reclaim] = ()


async def reclaimed(call: RequestReplyClient, command: ReclaimRequested) -> ReclaimView:
    """Raises BadInput for a command that cannot be carried out."""
    said = await call.accepted(command, ImagesReclaimed)
    if said is None:
        return ReclaimView(dry_run=command.dry_run, ended=False)
    return ReclaimView(dry_run=said.dry_run, freed_bytes=said.freed_bytes, images=said.images)


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the host's engine has (again)."""

    reference: str
    ended: bool = True
    image_id: str | None = None
    present: bool = False
    seconds: float = 0.0


async def fetched(call: RequestReplyClient, command: FetchRequested) -> Fetched:
    """Raises BadInput for an image that cannot be brought back."""
    said = await call.accepted(command, ImageFetched)
    if said is None:
        return Fetched(reference=command.reference, ended=False)
    return Fetched(reference=said.reference, image_id=said.image_id, present=said.present, seconds=said.seconds)
