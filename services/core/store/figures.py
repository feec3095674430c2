"""Storage figures of the registry: stored, logical, unique and shared bytes, from one mark and the blobs' sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from heapq import nsmallest

import msgspec

from events.records import Key
from services.core.store.mark import Mark, ReadManifest

#: So many images and layers are listed one by one.
DETAILS_LIMIT = 1000


class RepositoryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One repository. `unique_bytes` would be freed if all its tags were deleted; `shared_bytes` would stay."""

    repository: str
    tags: int
    logical_bytes: int
    unique_bytes: int
    shared_bytes: int


class ImageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One tag: the bytes of its different blobs, and how many of them no other tag needs (`unique_bytes`)."""

    repository: str
    tag: str
    stored_bytes: int
    unique_bytes: int
    shared_bytes: int


class LayerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One blob that several tags need. `saved_bytes` is its size for each reference but the first."""

    digest: str
    size_bytes: int
    references: int
    saved_bytes: int


class StoreDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The record `{prefix}:store:details`: the images that take most, and the blobs that save most, a thousand each."""

    at: datetime
    images: tuple[ImageFigures, ...] = ()
    layers: tuple[LayerFigures, ...] = ()


class StoreFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The record `{prefix}:store:figures`, written by the collector after every mark.

    stored_bytes        of all blobs that the registry serves: the sum of their files' sizes
    referenced_bytes    of those that something references
    collectable_bytes   of those that nothing references; what a collection frees once they are old enough
    quarantined_bytes   set aside by a collection, freed when the time to bring them back is over
    logical_bytes       what all tags would take if they shared nothing
    saved_bytes         logical bytes less stored once: what sharing layers saves
    uploads_bytes       of uploads under way or broken off
    disk_bytes          what the whole folder takes on the disk, folders and links included
    by_api              there is no storage folder: what tags do not reference, and the disk, are not known and 0
    """

    at: datetime
    tags: int
    repositories: int
    blobs: int
    stored_bytes: int
    referenced_bytes: int
    collectable_bytes: int
    quarantined_bytes: int
    logical_bytes: int
    saved_bytes: int
    uploads_bytes: int
    disk_bytes: int
    free_bytes: int
    damaged: tuple[str, ...] = ()
    by_repository: tuple[RepositoryFigures, ...] = ()
    by_api: bool = False


def figures_key(prefix: str) -> Key[StoreFigures]:
    """Where the collector writes them."""
    return Key(f"{prefix}:store:figures", StoreFigures)


def details_key(prefix: str) -> Key[StoreDetails]:
    """Where the collector writes figures of single images and blobs."""
    return Key(f"{prefix}:store:details", StoreDetails)


def image_blobs(manifest: str, read: ReadManifest) -> frozenset[str]:
    """Every digest that makes up what a tag names: the manifest itself, what it names, and what is below it."""
    found: set[str] = set()
    pending = [manifest]
    while pending:
        digest = pending.pop()
        if digest in found:
            continue
        found.add(digest)
        links = read(digest)
        if links is not None:
            found.update(links.blobs)
            pending += links.children
    return frozenset(found)


def repository_figures(
    mark: Mark, read: ReadManifest, sizes: Mapping[str, int]
) -> tuple[tuple[RepositoryFigures, ...], int, int]:
    """Figures per repository (most bytes first), the logical bytes of all tags, and of their different blobs."""
    content: dict[str, Counter[str]] = {}
    tags: Counter[str] = Counter()
    for (repository, _), manifest in mark.tagged.items():
        tags[repository] += 1
        content.setdefault(repository, Counter()).update(image_blobs(manifest, read))
    holders = Counter(digest for blobs in content.values() for digest in blobs)
    rows = []
    for repository, blobs in content.items():
        unique = sum(sizes.get(digest, 0) for digest in blobs if holders[digest] == 1)
        rows.append(
            RepositoryFigures(
                repository=repository,
                tags=tags[repository],
                logical_bytes=sum(sizes.get(digest, 0) * count for digest, count in blobs.items()),
                unique_bytes=unique,
                shared_bytes=sum(sizes.get(digest, 0) for digest in blobs) - unique,
            )
        )
    rows.sort(key=lambda row: (-row.logical_bytes, row.repository))
    logical = sum(row.logical_bytes for row in rows)
    return tuple(rows), logical, sum(sizes.get(digest, 0) for digest in holders)


def store_details(mark: Mark, read: ReadManifest, sizes: Mapping[str, int], at: datetime) -> StoreDetails:
    """Figures of single images and of shared blobs."""
    references = Counter(digest for manifest in mark.tagged.values() for digest in image_blobs(manifest, read))
    images = []
    for (repository, tag), manifest in mark.tagged.items():
        blobs = image_blobs(manifest, read)
        stored = sum(sizes.get(digest, 0) for digest in blobs)
        unique = sum(sizes.get(digest, 0) for digest in blobs if references[digest] == 1)
        images.append((-stored, repository, tag, unique))
    layers = [(-sizes.get(digest, 0) * (count - 1), digest, count) for digest, count in references.items() if count > 1]
    return StoreDetails(
        at=at,
        images=tuple(
            ImageFigures(
                repository=repository, tag=tag, stored_bytes=-stored, unique_bytes=unique, shared_bytes=-stored - unique
            )
            for stored, repository, tag, unique in nsmallest(DETAILS_LIMIT, images)
        ),
        layers=tuple(
            LayerFigures(
                digest=f"sha256:{digest}", size_bytes=sizes.get(digest, 0), references=count, saved_bytes=-saved
            )
            for saved, digest, count in nsmallest(DETAILS_LIMIT, layers)
        ),
    )


def exclusive_blobs(
    mark: Mark, read: ReadManifest, manifest: str, places: Collection[tuple[str, str]]
) -> frozenset[str]:
    """What only the tags `places` need of what `manifest` names: deleting them all frees it in the end."""
    others: set[str] = set()
    for other, named in mark.tagged.items():
        if other not in places:
            others |= image_blobs(named, read)
    return image_blobs(manifest, read) - others
