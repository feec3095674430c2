"""Rules for the entries of an image archive: bounds on number, names and sizes; only files, folders and links inside
it.

Whoever unpacks an archive, as engines do, makes a file of each entry. An archive that would fill a disk or its table of
files, or reach out of the folder that it is unpacked in, is refused by its headers, before its content is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.core.archives.tar_headers import Header

#: Linux: limits.h, NAME_MAX and PATH_MAX.
NAME_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 4096
_LINKS_AT_MOST = 16
_WHAT = {"device": "a device node", "fifo": "a FIFO", "other": "an entry of an unknown type"}


class BeyondLimit(ValueError):
    """An archive that exceeds a limit; its form is valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Bounds of one archive.

    entries             files, folders and links of the archive itself; an image has a few for each layer
    names_bytes         all names of those together; they are kept until the end
    documents_bytes     everything in it that says what its images are: manifests, configs, indexes
    document_bytes      one of those; registries have the same limit for a manifest
    layer_entries       files, folders and links in all of its layers
    unpacked_bytes      the files in all of its layers, unpacked
    """

    entries: int = 65_536
    names_bytes: int = 16 << 20
    documents_bytes: int = 32 << 20
    document_bytes: int = 4 << 20
    layer_entries: int = 5_000_000
    unpacked_bytes: int = 128 << 30


def clean_path(name: str) -> str:
    """A name as a path below the archive's folder: `./a//b/` is `a/b`, `/x` is `x`, the folder itself is ``.

    Raises ValueError for one that leads out of the folder, and for what no Linux file system can hold.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise ValueError(f"{_short(name)} leads out of the archive")
            parts.pop()
        elif part not in {"", "."}:
            if len(part.encode(errors="surrogateescape")) > NAME_LIMIT_BYTES:
                raise ValueError(f"{_short(name)} has a part of more than {NAME_LIMIT_BYTES} bytes")
            parts.append(part)
    path = "/".join(parts)
    if len(path.encode(errors="surrogateescape")) > PATH_LIMIT_BYTES:
        raise ValueError(f"{_short(name)} has more than {PATH_LIMIT_BYTES} bytes")
    return path


def link_target(path: str, header: Header) -> str:
    """Where a link inside the archive leads to, as a path in it. Raises ValueError where it leads out."""
    if header.kind == "hard link":
        return clean_path(header.link)
    if header.link.startswith("/"):
        raise ValueError(f"the link {_short(path)} leads out of the archive, to {_short(header.link)}")
    folder = path.rpartition("/")[0]
    try:
        return clean_path(f"{folder}/{header.link}")
    except ValueError as problem:
        raise ValueError(f"the link {_short(path)} leads out of the archive, to {_short(header.link)}") from problem


class ArchiveEntries:
    """The entries of an archive by path: None for a file, the target's path for a link. Folders are not kept."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._count = 0
        self._names_bytes = 0
        self._targets: dict[str, str | None] = {}

    def add(self, header: Header) -> str:
        """Note an entry; its path. Raises ValueError for what an image archive may not hold."""
        self._count += 1
        if self._count > self._limits.entries:
            raise BeyondLimit(
                f"it has more than {self._limits.entries} entries; an image archive has a few for each layer"
            )
        path = clean_path(header.name)
        if header.kind in _WHAT:
            raise ValueError(f"{_short(path)} is {_WHAT[header.kind]}, which no image archive holds beside its layers")
        self._below_no_link(path)
        self._names_bytes += len(path) + len(header.link)
        if self._names_bytes > self._limits.names_bytes:
            raise BeyondLimit(f"the names of its entries have more than {self._limits.names_bytes} bytes together")
        if header.kind == "folder":
            self._targets.pop(path, None)
        else:
            self._targets[path] = None if header.kind == "file" else link_target(path, header)
        return path

    def file(self, path: str) -> str | None:
        """The file that `path` names, links followed; None if there is none."""
        for _ in range(_LINKS_AT_MOST):
            if path not in self._targets:
                return None
            target = self._targets[path]
            if target is None:
                return path
            path = target
        return None

    def _below_no_link(self, path: str) -> None:
        """Raises ValueError for an entry that a reader would put into the target of a link."""
        place = path.find("/")
        while place > 0:
            if self._targets.get(path[:place]) is not None:
                raise ValueError(f"{_short(path)} lies below a link, {_short(path[:place])}")
            place = path.find("/", place + 1)


def _short(name: str) -> str:
    plain = name if len(name) <= 100 else f"{name[:100]}…"
    return repr(plain)
