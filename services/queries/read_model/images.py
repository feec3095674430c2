"""Images of the registry in memory: rows, who shares which layer, and who has which content.

A layer's references are counted as images come and go, so that the bytes that only one tag needs are known without a
walk: at most one other row changes with each layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from services.core.images.read_model import ImageLayers, RegistryEntry
from services.queries.read_model.listing import Listing
from services.queries.read_model.rows import RegistryImageRow, RepositoryRow, cut
from services.queries.read_model.table import Table


class LayerShare(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of one image, and how many tags of the registry have it."""

    digest: str
    size_bytes: int
    references: int


class ImageDetails(RegistryImageRow, frozen=True, kw_only=True):
    """A tag with its layers, base first, and the ranges that have its content."""

    shares: tuple[LayerShare, ...] = ()
    held_by: tuple[str, ...] = ()


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the registry: different layers, their bytes, and bytes as if images shared nothing."""

    images: int
    repositories: int
    layers: int
    stored_bytes: int
    logical_bytes: int
    damaged: int


class RegistryImages:
    """The table of tags, kept together with what it is computed from."""

    def __init__(self) -> None:
        self.table = Table[RegistryImageRow](
            {
                "name": lambda row: row.reference,
                "pushed": lambda row: row.pushed_at.timestamp(),
                "size": lambda row: row.size_bytes,
                "unique": lambda row: row.unique_bytes,
                "ranges": lambda row: row.ranges,
            }
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: row.reference,
            sorts={"name": "asc", "pushed": "desc", "size": "desc", "unique": "desc", "ranges": "desc"},
            state=lambda row: row.kind,
        )
        self._entries: dict[str, RegistryEntry] = {}
        self._layers: dict[str, tuple[tuple[str, int], ...]] = {}
        self._sizes: dict[str, int] = {}
        self._users: dict[str, set[str]] = defaultdict(set)
        self._of_content: dict[str, set[str]] = defaultdict(set)
        self._holders: dict[str, set[str]] = defaultdict(set)
        self._totals: tuple[int, Totals] | None = None
        self._repositories: tuple[int, Listing[RepositoryRow]] | None = None

    def put(self, entry: RegistryEntry, layers: ImageLayers | None) -> set[str]:
        """Add or replace a tag. Returns the references of all rows that changed."""
        affected = self._forget(entry.reference)
        name = entry.reference
        known = layers is not None and layers.manifest_digest == entry.manifest_digest
        found = layers.layers if layers is not None and known else ()
        self._entries[name] = entry
        self._layers[name] = found
        self._of_content[entry.image_id].add(name)
        for digest, size_bytes in found:
            self._sizes[digest] = size_bytes
            self._users[digest].add(name)
            affected |= self._lone_others(digest, name)
        return self._refresh({*affected, name})

    def remove(self, reference: str) -> set[str]:
        """Take a tag out. Returns the references of all rows that changed."""
        return self._refresh({*self._forget(reference), reference})

    def _forget(self, reference: str) -> set[str]:
        """Take an image's references off its layers; returns the other images for whom that matters."""
        entry = self._entries.pop(reference, None)
        if entry is None:
            return set()
        self._discard(self._of_content, entry.image_id, reference)
        affected: set[str] = set()
        for digest in {digest for digest, _ in self._layers.pop(reference, ())}:
            self._discard(self._users, digest, reference)
            if digest in self._users:
                affected |= self._lone_others(digest, reference)
            else:
                del self._sizes[digest]
        return affected

    def _lone_others(self, digest: str, reference: str) -> set[str]:
        """The other image to which a layer belonged alone, or belongs alone from now on."""
        others = self._users[digest] - {reference}
        return others if len(others) == 1 else set()

    def held(self, range_id: str, before: Iterable[str], after: Iterable[str]) -> set[str]:
        """Set which contents (image ids) a range has. Returns the references of all rows that changed."""
        gone, come = set(before) - set(after), set(after) - set(before)
        for image_id in gone:
            self._discard(self._holders, image_id, range_id)
        for image_id in come:
            self._holders[image_id].add(range_id)
        return self._refresh({name for image_id in gone | come for name in self._of_content.get(image_id, ())})

    def _refresh(self, references: Iterable[str]) -> set[str]:
        changed = set()
        for reference in references:
            entry = self._entries.get(reference)
            if self.table.remove(reference) if entry is None else self.table.put(reference, self._row(entry)):
                changed.add(reference)
        return changed

    def _row(self, entry: RegistryEntry) -> RegistryImageRow:
        layers = dict(self._layers[entry.reference])
        return RegistryImageRow(
            reference=entry.reference,
            repository=entry.repository,
            tag=entry.tag,
            kind="damaged" if entry.problem else entry.kind,
            manifest_digest=entry.manifest_digest,
            image_id=entry.image_id,
            layers=entry.layers,
            size_bytes=entry.size_bytes,
            unique_bytes=sum(size for digest, size in layers.items() if len(self._users[digest]) == 1),
            pushed_at=entry.pushed_at,
            actor=cut(entry.actor),
            source=cut(entry.source),
            ranges=len(self._holders.get(entry.image_id, ())) if entry.image_id else 0,
            problem=cut(entry.problem),
        )

    def details(self, reference: str) -> ImageDetails | None:
        """A tag with its layers and holders; None if there is none."""
        row = self.table.rows.get(reference)
        if row is None:
            return None
        shares = tuple(
            LayerShare(digest=digest, size_bytes=size, references=len(self._users[digest]))
            for digest, size in self._layers[reference]
        )
        return ImageDetails(
            **msgspec.structs.asdict(row), shares=shares, held_by=tuple(sorted(self._holders.get(row.image_id, ())))
        )

    def content_of(self, reference: str) -> RegistryEntry | None:
        """The entry under a full name."""
        return self._entries.get(reference)

    def names(self) -> set[str]:
        return set(self._entries)

    def totals(self) -> Totals:
        """The sums, counted again when an image changed."""
        if self._totals is None or self._totals[0] != self.table.version:
            self._totals = self.table.version, self._count_totals()
        return self._totals[1]

    def _count_totals(self) -> Totals:
        repositories = {row.repository for row in self.table.rows.values()}
        return Totals(
            images=len(self.table),
            repositories=len(repositories),
            layers=len(self._sizes),
            stored_bytes=sum(self._sizes.values()),
            logical_bytes=sum(row.size_bytes for row in self.table.rows.values()),
            damaged=sum(row.kind == "damaged" for row in self.table.rows.values()),
        )

    def repositories(self) -> Listing[RepositoryRow]:
        """The list of repositories, counted again when an image changed."""
        if self._repositories is None or self._repositories[0] != self.table.version:
            listing = Listing(
                table=self._count_repositories(),
                text=lambda row: row.repository,
                sorts={"name": "asc", "stored": "desc", "logical": "desc", "tags": "desc"},
            )
            self._repositories = self.table.version, listing
        return self._repositories[1]

    def _count_repositories(self) -> Table[RepositoryRow]:
        of_repository: dict[str, list[str]] = defaultdict(list)
        places: dict[str, set[str]] = defaultdict(set)
        for name, entry in self._entries.items():
            of_repository[entry.repository].append(name)
            for digest, _ in self._layers[name]:
                places[digest].add(entry.repository)
        table = Table[RepositoryRow](
            {
                "name": lambda row: row.repository,
                "stored": lambda row: row.stored_bytes,
                "logical": lambda row: row.logical_bytes,
                "tags": lambda row: row.tags,
            }
        )
        for repository, names in of_repository.items():
            layers = {digest for name in names for digest, _ in self._layers[name]}
            stored = sum(self._sizes[digest] for digest in layers)
            unique = sum(self._sizes[digest] for digest in layers if len(places[digest]) == 1)
            row = RepositoryRow(
                repository=repository,
                tags=len(names),
                layers=len(layers),
                logical_bytes=sum(self._entries[name].size_bytes for name in names),
                stored_bytes=stored,
                unique_bytes=unique,
                shared_bytes=stored - unique,
            )
            table.put(repository, row)
        return table

    @staticmethod
    def _discard(sets: dict[str, set[str]], key: str, member: str) -> None:
        """Take a member out of one of the sets; an empty set goes."""
        members = sets.get(key)
        if members is not None:
            members.discard(member)
            if not members:
                del sets[key]
