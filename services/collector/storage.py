"""Safe changes to the registry's storage, beside a registry that serves it (`services.collector.layout`).

A registry without a descriptor cache reads its files at every request, so a change counts at once for every process
that serves them. Every change is one rename, link or unlink: a process that is killed leaves one of two right states.
All methods block; callers run them in a thread.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from services.collector.layout import (
    DAMAGED,
    QUARANTINED,
    BlobState,
    RegistryLayout,
    linked_digest,
)
from services.collector.storage_files import file_stat, names_in, read_small

#: Beside a repository's tags, where the registry does not look.
DELETED_TAGS = "deleted-tags"
__all__ = ["QUARANTINED", "BlobState", "RegistryStorage"]


class RegistryStorage(RegistryLayout):
    """What may be done to the content, one step each."""

    def quarantine(self, digest: str, now: float) -> bool:
        """Set a blob aside: HEAD and GET answer 404 from now on. False where it is not there."""
        data = self.folder(digest) / "data"
        try:
            os.utime(data, (now, now))  # before the rename: quarantine begins now, also if this process ends in between
            data.rename(data.with_name(QUARANTINED))
        except FileNotFoundError:
            return False
        return True

    def restore(self, digest: str, needed_by: frozenset[str] = frozenset()) -> bool:
        """Bring a blob back from quarantine, never over a newer upload, and the links that repositories need."""
        folder = self.folder(digest)
        gone, came = folder / QUARANTINED, False
        with suppress(FileExistsError, FileNotFoundError):
            os.link(gone, folder / "data")
            came = True
            _fsync(folder)
        gone.unlink(missing_ok=True)
        for repository in needed_by:
            _write_link(self.layer_link(repository, digest), digest)
        return came

    def set_damaged_aside(self, digest: str) -> bool:
        """Take damaged bytes away, so that an upload writes them anew: the registry never replaces what is there."""
        data = self.folder(digest) / "data"
        try:
            data.rename(data.with_name(DAMAGED))
        except FileNotFoundError:
            return False
        self.forget_manifest(digest)
        return True

    def discard_damaged(self, digest: str) -> None:
        """Free the damaged bytes of a blob that was written anew."""
        (self.folder(digest) / DAMAGED).unlink(missing_ok=True)

    def discard(self, digest: str, repositories: list[str]) -> int:
        """Free a quarantined blob for good, its links first; the bytes freed. Stops where it was uploaded again."""
        folder = self.folder(digest)
        data, gone = folder / "data", folder / QUARANTINED
        for repository in repositories:
            link = self.layer_link(repository, digest)
            if data.exists():
                break
            link.unlink(missing_ok=True)
            if data.exists():  # it was uploaded between the two looks, and its link is needed
                _write_link(link, digest)
        found = file_stat(gone)
        if found is None:
            return 0
        gone.unlink(missing_ok=True)
        self.forget_manifest(digest)
        return 0 if data.exists() else found.st_size

    def unlink_revision(self, repository: str, digest: str) -> bool:
        """Take a manifest out of a repository. Its empty folder stays and says when that was."""
        try:
            self.revision_link(repository, digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def relink_revision(self, repository: str, digest: str) -> None:
        _write_link(self.revision_link(repository, digest), digest)

    def delete_tag(self, repository: str, tag: str, digest: str, *, command_id: str = "") -> bool:
        """Delete a tag that names `digest`; a tag that names something else by now stays. False where it stayed.

        What is left of the link bears `command_id`, so that the same command, taken up again, finds its own work.
        """
        current = self.repositories / repository / "_manifests/tags" / tag / "current"
        link, gone = current / "link", current / f"gone-{digest}-{command_id or uuid.uuid4().hex}"
        try:
            link.rename(gone)
        except FileNotFoundError:
            return False
        if linked_digest(read_small(gone)) == digest:
            return True
        with suppress(FileExistsError):  # somebody moved the tag meanwhile: it goes back, unless it was written again
            os.link(gone, link)
        gone.unlink(missing_ok=True)
        return False

    def drop_tag(self, repository: str, tag: str) -> bool:
        """Remove what is left of a tag that was deleted long ago, so that it is listed no more; False where it was
        pushed again. Only of old ones: a PUT beside it fails, and its client tries again."""
        manifests = self.repositories / repository / "_manifests"
        aside = manifests / DELETED_TAGS / tag
        with suppress(OSError):  # it came back, or the disk has no room for another folder
            aside.parent.mkdir(exist_ok=True)
            (manifests / "tags" / tag).rename(aside)
        return self._settle_tag(manifests, tag)

    def settle_tags(self, repository: str) -> None:
        """End what a process that was killed had begun with `drop_tag`."""
        manifests = self.repositories / repository / "_manifests"
        for tag in names_in(manifests / DELETED_TAGS):
            self._settle_tag(manifests, tag)

    def _settle_tag(self, manifests: Path, tag: str) -> bool:
        """A tag that was pushed in the very moment goes back, unless it was pushed yet again; the rest goes."""
        aside = manifests / DELETED_TAGS / tag
        pushed = (aside / "current/link").exists()
        if pushed:
            with suppress(OSError):
                aside.rename(manifests / "tags" / tag)
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            aside.parent.rmdir()
        return not pushed


def _write_link(path: Path, digest: str) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    written.write_text(f"sha256:{digest}")
    written.rename(path)


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
