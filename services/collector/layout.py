"""The layout of the registry's storage folder (distribution 2.8, filesystem driver), and reading it.

    docker/registry/v2/blobs/sha256/<2>/<digest>/data                  a blob or a manifest
    docker/registry/v2/repositories/<name>/_layers/sha256/<digest>/link
    docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/<digest>/link
    docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link, index/sha256/<digest>/link
    docker/registry/v2/repositories/<name>/_uploads/<id>/…

What `services.collector.storage` sets aside lies beside a blob's `data`, under names that the registry ignores:

    data.gone   in quarantine: unreferenced, and brought back as long as it is there
    data.bad    damaged: its bytes are not those of its digest; nothing restores it

All methods block; callers run them in a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from services.collector.storage_files import file_stat, names_in, read_small, tree_bytes
from services.core.store.mark import ManifestLinks, RepositoryState, RevisionState, TagState, manifest_links
from services.errors import BadInput

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_LINK = re.compile(r"sha256:([0-9a-f]{64})\Z")
QUARANTINED = "data.gone"
DAMAGED = "data.bad"


class BlobState(NamedTuple):
    """One blob's folder. Sizes are None where there is no such file; `changed_at` is the newest time of `data`."""

    digest: str
    size_bytes: int | None
    changed_at: float
    quarantined_bytes: int | None
    quarantined_at: float


class RegistryLayout:
    """`root` is the registry's `rootdirectory`. Raises BadInput where it holds no registry."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._v2 = root / "docker/registry/v2"
        self._blobs = str(self._v2 / "blobs/sha256")
        self.repositories = self._v2 / "repositories"
        self._repositories = str(self.repositories)
        self._links: dict[str, ManifestLinks] = {}

    def check(self) -> None:
        """Raises BadInput for a folder that is there and holds something else; an empty one is an empty registry."""
        if self.root.is_dir() and not self._v2.is_dir() and any(self.root.iterdir()):
            raise BadInput(f"{self.root} is no storage folder of a registry: it has no docker/registry/v2")

    # ---- reading ----

    def repository_names(self) -> Iterator[str]:
        """Names of all repositories, however deep."""
        pending = [""]
        while pending:
            name = pending.pop()
            folders = _folders(os.path.join(self._repositories, name))
            if any(folder in ("_manifests", "_layers", "_uploads") for folder in folders):
                yield name
            pending += [os.path.join(name, folder) for folder in folders if not folder.startswith("_")]

    def repository(self, name: str) -> RepositoryState:
        """Tags and revisions of one repository, as they are now."""
        folder = f"{self._repositories}/{name}/_manifests/tags"
        revisions_folder = f"{self._repositories}/{name}/_manifests/revisions/sha256"
        revisions = {digest: _revision(f"{revisions_folder}/{digest}") for digest in _digests(revisions_folder)}
        tags = {tag: _tag(f"{folder}/{tag}") for tag in names_in(folder)}
        named = {state.current for state in tags.values()}
        if named != revisions.keys() or any(revision.put_at is None for revision in revisions.values()):
            tags = {tag: _with_history(f"{folder}/{tag}", state) for tag, state in tags.items()}
        return RepositoryState(
            name=name, tags=tags, revisions=revisions, layers=lambda: _digests(self.layers_folder(name))
        )

    def deleted_by(self, repository: str, tag: str, command_id: str) -> str | None:
        """The digest that a tag named when this command deleted it (`delete_tag`); None where it did not."""
        folder = self.repositories / repository / "_manifests/tags" / tag / "current"
        for name in names_in(folder):
            kind, _, rest = name.partition("-")
            digest, _, by = rest.partition("-")
            if kind == "gone" and by == command_id:
                return digest
        return None

    def blobs(self) -> Iterator[BlobState]:
        """Every blob's folder; those without any file are left out."""
        for shard in names_in(self._blobs):
            for digest in _digests(f"{self._blobs}/{shard}"):
                state = self.blob(digest)
                if state.size_bytes is not None or state.quarantined_bytes is not None:
                    yield state

    def blob(self, digest: str) -> BlobState:
        folder = f"{self._blobs}/{digest[:2]}/{digest}"
        data, gone = file_stat(f"{folder}/data"), file_stat(f"{folder}/{QUARANTINED}")
        return BlobState(
            digest=digest,
            size_bytes=data.st_size if data else None,
            changed_at=max(data.st_mtime, data.st_ctime) if data else 0.0,
            quarantined_bytes=gone.st_size if gone else None,
            quarantined_at=gone.st_mtime if gone else 0.0,
        )

    def pushed_at(self, repository: str, tag: str, manifest: str) -> float:
        """When a manifest was last put under a tag."""
        found = file_stat(f"{self._repositories}/{repository}/_manifests/tags/{tag}/index/sha256/{manifest}/link")
        return found.st_mtime if found else 0.0

    def read_at(self, digest: str) -> float:
        """When a blob was last read, to the day (`relatime`); on a file system without access times when it came."""
        found = file_stat(f"{self._blobs}/{digest[:2]}/{digest}/data")
        return found.st_atime if found else 0.0

    def linked_at(self, repository: str, digest: str) -> float:
        """When a repository last linked a blob (an upload, a mount); 0 where it does not."""
        found = file_stat(self.layer_link(repository, digest))
        return found.st_mtime if found else 0.0

    def linking(self, digests: frozenset[str]) -> dict[str, list[str]]:
        """Which repositories link each of `digests`: one walk over all repositories' layer folders."""
        found: dict[str, list[str]] = {digest: [] for digest in digests}
        for name in self.repository_names():
            for digest in digests.intersection(names_in(self.layers_folder(name))):
                found[digest].append(name)
        return found

    def having_revisions(self, digests: frozenset[str]) -> dict[str, list[str]]:
        """Which repositories have, or had, each of these manifests: a folder stays where the link was taken away."""
        found: dict[str, list[str]] = {digest: [] for digest in digests}
        for name in self.repository_names() if digests else ():
            for digest in digests.intersection(names_in(f"{self._repositories}/{name}/_manifests/revisions/sha256")):
                found[digest].append(name)
        return found

    def manifest(self, digest: str) -> ManifestLinks | None:
        """What a manifest names, its bytes hashed; also from quarantine. None where it is missing or damaged."""
        if digest in self._links:
            return self._links[digest]
        folder = f"{self._blobs}/{digest[:2]}/{digest}"
        content = read_small(f"{folder}/data") or read_small(f"{folder}/{QUARANTINED}")
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            return None
        links = manifest_links(content)
        if links is not None:
            self._links[digest] = links
        return links

    def forget_manifest(self, digest: str) -> None:
        """Its bytes are gone, or others by now."""
        self._links.pop(digest, None)

    def forget_manifests(self) -> None:
        """Read and hash every manifest again from now on."""
        self._links.clear()

    def is_intact(self, digest: str) -> bool | None:
        """Whether a blob's bytes are those of its digest; None where it is not there."""
        try:
            with open(self.folder(digest) / "data", "rb", opener=_without_trace) as data:
                return hashlib.file_digest(data, "sha256").hexdigest() == digest
        except FileNotFoundError:
            return None

    def uploads_bytes(self) -> int:
        """What uploads under way, or broken off, take."""
        return sum(tree_bytes(self.repositories / name / "_uploads", apparent=True) for name in self.repository_names())

    def disk_bytes(self) -> int:
        """What the whole folder takes on the disk: files, folders and links."""
        return tree_bytes(self.root, apparent=False)

    def space(self) -> tuple[int, int]:
        """Free bytes of the disk, and all of it. Raises OSError."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    # ---- inside ----

    def folder(self, digest: str) -> Path:
        """The folder of a blob."""
        return Path(self._blobs, digest[:2], digest)

    def layers_folder(self, repository: str) -> Path:
        """Where a repository links blobs."""
        return self.repositories / repository / "_layers/sha256"

    def layer_link(self, repository: str, digest: str) -> Path:
        """What makes a blob visible in a repository."""
        return self.layers_folder(repository) / digest / "link"

    def revision_link(self, repository: str, digest: str) -> Path:
        """What makes a manifest one of a repository."""
        return self.repositories / repository / "_manifests/revisions/sha256" / digest / "link"


def _tag(folder: str) -> TagState:
    """Without its history: where tags name every manifest, and every manifest has a tag, nothing has ended."""
    content = read_small(f"{folder}/current/link")
    current = linked_digest(content)
    return TagState(current, content is not None and current is None, {}, 0.0)


def _with_history(folder: str, state: TagState) -> TagState:
    changed = file_stat(f"{folder}/current") or file_stat(folder)
    history = f"{folder}/index/sha256"
    puts = {digest: file_stat(f"{history}/{digest}/link") for digest in _digests(history)}
    return state._replace(
        history={digest: found.st_mtime for digest, found in puts.items() if found is not None},
        ended_at=changed.st_mtime if changed else 0.0,
    )


def _revision(folder: str) -> RevisionState:
    link = file_stat(f"{folder}/link")
    if link is not None:
        return RevisionState(link.st_mtime, link.st_mtime)
    own = file_stat(folder)
    return RevisionState(None, own.st_mtime if own else 0.0)


def _without_trace(path: str, flags: int) -> int:
    """Open without a change of the access time, which says when a client last read the file."""
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # somebody else's file
        return os.open(path, flags)


def linked_digest(content: bytes | None) -> str | None:
    """The digest in a link file; None where it holds none."""
    found = _LINK.match((content or b"").decode(errors="replace"))
    return sys.intern(found[1]) if found else None


def _digests(folder: str | Path) -> list[str]:
    """Names that are digests, each one kept in memory once however often it is met."""
    return [sys.intern(name) for name in names_in(folder) if _DIGEST.match(name)]


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
