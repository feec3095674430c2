"""Deletions that wait for a collection: what each will free, and when its bytes are gone.

    {prefix}:store:deletion:<id>   PendingDeletion
    {prefix}:store:deletions       ids, by the time of the deletion

A blob counts for the latest deletion that waits for it, so that bytes are told once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from events.records import Key

#: Of a blob: nothing is left of it; a tag needs it again; it is still there.
BlobFate = Literal["freed", "needed", "there"]


class PendingDeletion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tag, or all tags of a digest, that went. `blobs` are what nothing else needed, with their sizes."""

    id: str
    reference: str
    manifest_digest: str
    deleted_at: float
    blobs: dict[str, int] = {}
    freed_bytes: int = 0
    tags: tuple[str, ...] = ()
    correlation_id: str = ""
    caused_by: str = ""


@dataclass(frozen=True, slots=True)
class DeletionKeys:
    """Names under a key prefix."""

    prefix: str

    def record(self, deletion_id: str) -> Key[PendingDeletion]:
        return Key(f"{self.prefix}:store:deletion:{deletion_id}", PendingDeletion)

    @property
    def all(self) -> str:
        return f"{self.prefix}:store:deletions"


def settled(
    pending: Iterable[PendingDeletion], fate: Callable[[str], BlobFate]
) -> tuple[list[PendingDeletion], list[PendingDeletion]]:
    """Those that are over, with the bytes that were freed, and those that changed and still wait."""
    over: list[PendingDeletion] = []
    changed: list[PendingDeletion] = []
    claimed: set[str] = set()
    for deletion in sorted(pending, key=lambda one: -one.deleted_at):
        left: dict[str, int] = {}
        freed = deletion.freed_bytes
        for digest, size in deletion.blobs.items():
            is_first, now = digest not in claimed, fate(digest)
            claimed.add(digest)
            if is_first and now == "freed":
                freed += size
            elif is_first and now == "there":
                left[digest] = size
        after = msgspec.structs.replace(deletion, blobs=left, freed_bytes=freed)
        if not left:
            over.append(after)
        elif after != deletion:
            changed.append(after)
    return over, changed
