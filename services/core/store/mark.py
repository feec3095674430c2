"""Mark phase of garbage collection: which manifests and blobs of a registry are referenced, repository by repository.

Roots of a repository are its tags, what is pinned (open deployments, what ranges are meant to have, plans), and every
manifest whose last reference ended less than the grace ago. The grace counts from the **end** of a reference, never
from the upload: a push that only checks whether a blob exists leaves no trace of itself in the storage.

Two rules make the result safe rather than small. A manifest that cannot be read (missing, cut, changed: the caller
hashes it) keeps all that its repository links. A tag whose link is empty (registry 2.8 truncates a link before it
writes it) keeps everything the tag ever named.

Digests are the bare 64 hexadecimal digits, as in the storage's paths. Times are seconds since the epoch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from events.malformed import MALFORMED


class ManifestLinks(NamedTuple):
    """What a manifest or an index names: blobs (config and layers), manifests below it, and each blob's size (-1: not
    known, or not stored here)."""

    blobs: tuple[str, ...]
    children: tuple[str, ...]
    sizes: tuple[int, ...] = ()


class TagState(NamedTuple):
    """A tag in the storage.

    current   the digest it names; None where its link is gone (deleted) or cannot be believed (`damaged`)
    damaged   the link is there and is no digest
    history   digests it has named, with the time of each one's last PUT
    ended_at  when the link was last changed: the time of deletion where it is gone
    """

    current: str | None
    damaged: bool
    history: Mapping[str, float]
    ended_at: float


class RevisionState(NamedTuple):
    """A manifest of a repository. `put_at` is None where its link is gone; `changed_at` is its folder's time."""

    put_at: float | None
    changed_at: float


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """One repository as it lies in the storage. `layers` lists the blobs it links, read only where it is needed."""

    name: str
    tags: Mapping[str, TagState]
    revisions: Mapping[str, RevisionState]
    layers: Callable[[], Collection[str]]


#: What a digest names; None where the manifest is missing, damaged, or no manifest.
ReadManifest = Callable[[str], ManifestLinks | None]


@dataclass(slots=True)
class Mark:
    """What is referenced.

    live      digest → repositories that need a link to it (empty: only its bytes are needed)
    untagged  (repository, manifest) whose last reference ended a grace ago: its link may go
    damaged   (repository, manifest) that is referenced and cannot be read
    broken_tags   (repository, tag) with an empty or unreadable link
    unlinked  (repository, manifest) that a tag names and whose revision link is missing
    tagged    (repository, tag) → manifest
    ended     (repository, tag) that was deleted a grace ago: what is left of its folder may go
    """

    live: dict[str, list[str]] = field(default_factory=dict)
    untagged: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    broken_tags: list[tuple[str, str]] = field(default_factory=list)
    unlinked: list[tuple[str, str]] = field(default_factory=list)
    tagged: dict[tuple[str, str], str] = field(default_factory=dict)
    ended: list[tuple[str, str]] = field(default_factory=list)

    def needs(self, digest: str) -> None:
        """Its bytes are needed; no repository needs a link to it for this reason."""
        self.live.setdefault(digest, [])

    def needs_all(self, digests: Collection[str], repository: str) -> None:
        """Repositories are marked one after the other, so one that is noted already is the last of the list."""
        live = self.live
        for digest in digests:
            needed_by = live.get(digest)
            if needed_by is None:
                live[digest] = [repository]
            elif not needed_by or needed_by[-1] != repository:
                needed_by.append(repository)


def mark_repository(
    mark: Mark,
    repository: RepositoryState,
    read: ReadManifest,
    *,
    pins: Collection[str],
    grace_seconds: float,
    now: float,
) -> None:
    """Add what one repository references to `mark`. `pins` are digests of manifests or of configs."""
    ended = _reference_ends(repository)
    mark.ended += [
        (repository.name, tag)
        for tag, state in repository.tags.items()
        if state.current is None and not state.damaged and now - state.ended_at >= grace_seconds
    ]
    roots = set(_tag_roots(mark, repository))
    old: list[str] = []
    for digest, revision in repository.revisions.items():
        if digest in roots:
            continue
        end = max(revision.put_at or 0.0, ended.get(digest, 0.0)) if revision.put_at else revision.changed_at
        if now - end < grace_seconds or _is_pinned(digest, read, pins):
            roots.add(digest)
        elif revision.put_at is not None:
            old.append(digest)
    visited: set[str] = set()
    unreadable = _follow(mark, repository, read, roots, visited)
    loose = [digest for digest in old if digest not in visited]
    # A manifest without a tag keeps what it names until its own link has gone: the sweep takes one thing after another.
    _follow(mark, repository, read, loose, visited)
    missing = [digest for digest in unreadable if digest in ended or _is_linked(repository, digest)]
    mark.damaged += [(repository.name, digest) for digest in missing]
    if missing:
        for digest in (*repository.layers(), *old):
            mark.needs(digest)
    else:
        mark.untagged += [(repository.name, digest) for digest in loose]


def _is_pinned(digest: str, read: ReadManifest, pins: Collection[str]) -> bool:
    links = read(digest)
    return digest in pins or (links is not None and any(blob in pins for blob in links.blobs))


def _tag_roots(mark: Mark, repository: RepositoryState) -> Iterator[str]:
    for tag, state in repository.tags.items():
        if state.current is not None:
            mark.tagged[repository.name, tag] = state.current
            revision = repository.revisions.get(state.current)
            if revision is None or revision.put_at is None:
                mark.unlinked.append((repository.name, state.current))
            yield state.current
        elif state.damaged:
            mark.broken_tags.append((repository.name, tag))
            yield from state.history


def _reference_ends(repository: RepositoryState) -> dict[str, float]:
    """When a tag stopped naming each manifest of its history: at the tag's next PUT, or when the tag was deleted."""
    ended: dict[str, float] = {}
    for state in repository.tags.values():
        puts = sorted((put_at, digest) for digest, put_at in state.history.items())
        for place, (_, digest) in enumerate(puts, start=1):
            end = puts[place][0] if place < len(puts) else state.ended_at
            if digest != state.current:
                ended[digest] = max(ended.get(digest, 0.0), end)
    return ended


def _follow(
    mark: Mark,
    repository: RepositoryState,
    read: ReadManifest,
    roots: Collection[str],
    visited: set[str],
) -> list[str]:
    """Mark all that `roots` reach; the manifests that cannot be read."""
    unreadable = []
    pending = list(roots)
    while pending:
        digest = pending.pop()
        if digest in visited:
            continue
        visited.add(digest)
        mark.needs(digest)
        links = read(digest)
        if links is not None:
            mark.needs_all(links.blobs, repository.name)
            pending += links.children
        else:
            unreadable.append(digest)
    return unreadable


def _is_linked(repository: RepositoryState, digest: str) -> bool:
    revision = repository.revisions.get(digest)
    return revision is not None and revision.put_at is not None


# ---- what a manifest names -------------------------------------------------------------------------------------------


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str
    size: int = -1
    urls: Any = None

    @property
    def stored_bytes(self) -> int:
        """Its size; -1 where that is not said, or the content is meant to be fetched from elsewhere."""
        return -1 if self.urls else self.size


class _AnyManifest(msgspec.Struct, frozen=True):
    """An image manifest, an index or an artifact: told by its fields, since a media type may be any."""

    config: _Descriptor | None = None
    layers: tuple[_Descriptor, ...] | None = None
    manifests: tuple[_Descriptor, ...] | None = None
    blobs: tuple[_Descriptor, ...] | None = None


def manifest_links(content: bytes) -> ManifestLinks | None:
    """What a manifest's bytes name; None where they are no manifest."""
    try:
        manifest = msgspec.json.decode(content, type=_AnyManifest)
    except MALFORMED:
        return None
    blobs = [*([manifest.config] if manifest.config else []), *(manifest.layers or ()), *(manifest.blobs or ())]
    return ManifestLinks(
        _names(blobs),
        _names(manifest.manifests) if manifest.manifests else (),
        tuple([one.stored_bytes for one in blobs]),
    )


def _names(described: Iterable[_Descriptor]) -> tuple[str, ...]:
    """Hexadecimal digests, interned: a layer that ten thousand manifests name is one string."""
    intern = sys.intern
    return tuple([intern(one.digest.rpartition(":")[2]) for one in described])
