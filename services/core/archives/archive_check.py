"""Check of an image archive while it streams: its layout, its completeness, its images and their names.

Both layouts that there are, as any tool writes them: `manifest.json` of `docker save`, and OCI layouts. Headers, names
and small documents are kept; a layer's bytes are counted and forgotten. An archive that is plainly something else, or
that exceeds a limit, is refused at the first header that shows it, before gigabytes are sent to an engine.

What `feed` gives goes on to the engine: all of the archive except its documents and its end. They are written anew by
`finish`, for both kinds of store, so that the engine acts on what was checked, under the names that were decided on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.core.archives.archive_documents import (
    DOCUMENTS,
    INDEX,
    LAYOUT,
    LAYOUT_CONTENT,
    MANIFEST,
    write_index,
    write_manifest,
)
from services.core.archives.archive_images import ArchiveContent, ArchivedImage
from services.core.archives.entry_rules import ArchiveEntries, ArchiveLimits, BeyondLimit
from services.core.archives.layer_check import LayerCheck, Unpacked
from services.core.archives.layout import Entry, padding
from services.core.archives.packings import Packing, packing_of
from services.core.archives.tar_parser import EntryContent, EntryStart, TarParser
from services.core.images.references import Reference
from services.errors import BadArchive

#: Where the root file system of a Linux image has its first folders: a tar with one of these is no image archive.
_ROOT_FOLDERS = frozenset(
    ["bin", "boot", "dev", "etc", "home", "lib", "lib64", "opt", "proc", "root", "sbin", "sys", "usr", "var"]
)
_OPENS_JSON = (b"{", b"[")


@dataclass(frozen=True, slots=True)
class CheckedArchive:
    """A complete archive after its check: its images."""

    images: tuple[ArchivedImage, ...]
    is_oci: bool
    packings: Mapping[str, Packing] = field(default_factory=dict)

    @property
    def has_zstd(self) -> bool:
        """Whether a layer is packed by zstd, which old engines cannot read."""
        return any(self.packings.get(path or "") == "zstd" for image in self.images for path in image.layers)

    @property
    def left_out(self) -> tuple[ArchivedImage, ...]:
        """Its images that leave out layers, which the engine has to have."""
        return tuple(image for image in self.images if None in image.layers)

    def documents(self, names: Mapping[str, Sequence[str]]) -> bytes:
        """The entries that say which images it holds, for both kinds of store.

        names  normalised names by the path of an image's config; an image without any is left out
        """
        kept = [(image, tuple(names[image.config_path])) for image in self.images if names.get(image.config_path)]
        files = {
            MANIFEST: write_manifest(
                [image.manifest(tuple(Reference.parse(name).familiar for name in given)) for image, given in kept]
            )
        }
        if self.is_oci:
            pairs = [(image.pointer, name) for image, given in kept if image.pointer is not None for name in given]
            files |= {LAYOUT: LAYOUT_CONTENT, INDEX: write_index(pairs)}
        return b"".join(
            Entry(name=name, size_bytes=len(content)).header(len(content)) + content + padding(len(content))
            for name, content in files.items()
        )


class ArchiveCheck:
    """`feed()` every chunk and pass on what it returns, then `finish()`. Both raise BadArchive with the reason."""

    def __init__(self, origin: str, limits: ArchiveLimits = ArchiveLimits()) -> None:  # noqa: B008  frozen
        self._origin = origin
        self._limits = limits
        self._parser = TarParser()
        self._entries = ArchiveEntries(limits)
        self._unpacked = Unpacked(limits)
        self._seen_bytes = 0
        self._first = b""
        self._path = ""
        self._kept: bytearray | None = None
        self._kept_bytes = 0
        self._layer: LayerCheck | None = None
        self._documents: dict[str, bytes] = {}
        self._packings: dict[str, Packing] = {}

    @property
    def seen_bytes(self) -> int:
        """Bytes fed so far."""
        return self._seen_bytes

    @property
    def unpacked_bytes(self) -> int:
        """Unpacked size of the files in its layers, as far as they were fed."""
        return self._unpacked.layer_bytes

    def feed(self, chunk: bytes) -> Iterator[bytes | memoryview]:
        """The next bytes of the (unpacked) archive. Returns those that the engine is to get."""
        self._seen_bytes += len(chunk)
        if len(self._first) < 8:
            self._first += chunk[:8]
        try:
            for part in self._parser.feed(chunk):
                if isinstance(part, EntryStart):
                    self._begin(part)
                elif isinstance(part, EntryContent):
                    self._content(part.raw)
                else:
                    self._end()
                if self._path not in DOCUMENTS:
                    yield part.raw
        except BeyondLimit as problem:
            raise BadArchive(f"{self._origin} is too large: {problem}") from problem
        except ValueError as problem:
            self._once_packed()
            raise BadArchive(self._broken(problem)) from problem

    def finish(self, platform: str) -> CheckedArchive:
        """The checked archive, for an engine of that platform."""
        if self._seen_bytes == 0:
            raise BadArchive(f"{self._origin} is empty")
        self._once_packed()
        if not self._parser.is_whole:
            raise BadArchive(f"{self._origin} is cut off after {self._seen_bytes} bytes; get it again, whole")
        content = ArchiveContent(origin=self._origin, file=self._entries.file, documents=self._documents)
        manifest, index = self._documents.get(MANIFEST), self._documents.get(INDEX)
        if manifest is not None:
            checked = _with_pointers(content.docker(manifest), content, index, platform)
            return replace(checked, packings=self._packings)
        if index is not None:
            return CheckedArchive(tuple(content.oci(index, platform)), is_oci=True, packings=self._packings)
        if not self._parser.ended:
            raise BadArchive(f"{self._origin} is cut off after {self._seen_bytes} bytes; get it again, whole")
        raise BadArchive(
            f"{self._origin} is no image archive: it holds neither manifest.json nor index.json;"
            " `docker save` writes image archives"
        )

    def _once_packed(self) -> None:
        """Raises BadArchive where there is another packing within the one that was taken off."""
        packing = packing_of(self._first)
        if packing != "plain" and not self._parser.entries:
            raise BadArchive(f"{self._origin} is packed twice, the second time by {packing}; unpack it once")

    def _broken(self, problem: ValueError) -> str:
        if self._parser.entries:
            return f"{self._origin} cannot be read: {problem}"
        return f"{self._origin} is no tar archive (nor one packed by gzip, zstd, xz or bzip2): {problem}"

    def _begin(self, start: EntryStart) -> None:
        header = start.header
        self._path = path = self._entries.add(header)
        self._kept = self._layer = None
        self._documents.pop(path, None)
        if path.partition("/")[0] in _ROOT_FOLDERS:
            raise BadArchive(
                f"{self._origin} is no image archive but a file system: it begins with {path!r};"
                " `docker save` writes image archives, `docker import` makes an image of a file system"
            )
        if header.kind in {"hard link", "link"}:
            if path in DOCUMENTS:
                raise ValueError(f"{path} is a link")
            return
        if not header.is_file:
            return
        if path in DOCUMENTS and header.content_bytes > self._limits.document_bytes:
            raise ValueError(f"its {path} has {header.content_bytes} bytes; {self._limits.document_bytes} are the most")
        if header.content_bytes <= self._limits.document_bytes:
            self._kept = bytearray()
        self._layer = LayerCheck(self._unpacked)

    def _content(self, piece: memoryview) -> None:
        if self._kept is not None:
            if not self._kept and path_is_layer(piece, self._path):
                self._kept = None
            else:
                self._keep(piece)
                return
        if self._layer is not None:
            self._layer.feed(piece)

    def _keep(self, piece: memoryview) -> None:
        """Of a document, or of what may be one."""
        if self._kept is None:
            return
        self._kept += piece
        self._kept_bytes += len(piece)
        if self._kept_bytes > self._limits.documents_bytes:
            raise BeyondLimit(f"it describes its images in more than {self._limits.documents_bytes} bytes")

    def _end(self) -> None:
        if self._layer is not None and self._layer.packing not in {None, "plain"}:
            self._packings[self._path] = self._layer.packing or "plain"
        if self._kept:
            self._documents[self._path] = bytes(self._kept)
        self._kept = None


def path_is_layer(piece: memoryview, path: str) -> bool:
    """Whether a file that begins so is no JSON document."""
    return path not in DOCUMENTS and bytes(piece[:1]) not in _OPENS_JSON


def _with_pointers(
    images: list[ArchivedImage], content: ArchiveContent, index: bytes | None, platform: str
) -> CheckedArchive:
    """The same images, as its OCI layout has them as well; without, where the two do not agree."""
    if index is None:
        return CheckedArchive(tuple(images), is_oci=False)
    try:
        pointed = {image.config_path: image for image in content.oci(index, platform)}
    except BadArchive:
        return CheckedArchive(tuple(images), is_oci=False)
    both = [
        ArchivedImage(one.config_path, one.config, one.layers, one.names, pointed[one.config_path].pointer)
        for one in images
        if one.config_path in pointed and pointed[one.config_path].layers == one.layers
    ]
    return CheckedArchive(tuple(both if len(both) == len(images) else images), is_oci=len(both) == len(images))
