"""Looks at an archive while it flows by: is it an image archive, is it whole, which names does it hold?

What `docker save` writes, in both layouts (`manifest.json` beside the layers; since engine 25 an OCI layout as well).
Only headers and the small files that name things are kept; a layer's bytes are counted and forgotten. An archive that
is plainly something else is refused at the first entry that says so, before gigabytes are sent to an engine.
"""

from __future__ import annotations

import tarfile

import msgspec

from services.core.archives import BLOCK_BYTES
from services.errors import BadArchive

_KEPT = {"manifest.json", "index.json"}
_KEPT_LIMIT_BYTES = 16 * 1024 * 1024
#: Where the root file system of a Linux image has its first folders: a tar with one of these is no image archive.
_ROOT_FOLDERS = {
    "bin",
    "boot",
    "dev",
    "etc",
    "home",
    "lib",
    "lib64",
    "opt",
    "proc",
    "root",
    "sbin",
    "sys",
    "usr",
    "var",
}
_LONG_NAMES = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X"}
_NAME_ANNOTATION = "io.containerd.image.name"


class _Named(msgspec.Struct):
    """One image in `manifest.json`."""

    config: str = msgspec.field(name="Config")
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)
    layers: list[str] = msgspec.field(name="Layers", default_factory=list)


class _Pointer(msgspec.Struct):
    digest: str
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct):
    manifests: list[_Pointer]


class ArchiveCheck:
    """`feed()` every chunk, then `finish()`. Both raise BadArchive with what is wrong."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._buffer = bytearray()
        self._skip_bytes = 0
        self._keep: str | None = None
        self._kept_bytes = 0
        self._kept: dict[str, bytes] = {}
        self._entries: set[str] = set()
        self._ended = False
        self._seen_bytes = 0
        self._image_count = 0

    @property
    def seen_bytes(self) -> int:
        """How much went by."""
        return self._seen_bytes

    @property
    def ended(self) -> bool:
        """Whether the tar's own end went by; what follows it is padding."""
        return self._ended

    @property
    def image_count(self) -> int:
        """Different images inside, named or not; known after `finish()`."""
        return self._image_count

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the (uncompressed) archive."""
        self._seen_bytes += len(chunk)
        if self._ended:
            return
        inside_a_layer = self._keep is None and not self._buffer and self._skip_bytes >= len(chunk)
        if inside_a_layer:
            self._skip_bytes -= len(chunk)
            return
        self._buffer += chunk
        while self._step():
            pass

    def finish(self) -> list[str]:
        """The names of the images inside, normalised or not as the archive has them; empty if they have none."""
        if self._seen_bytes == 0:
            raise BadArchive(f"{self._name} is empty")
        if not self._ended and (self._skip_bytes or self._buffer or self._keep):
            raise BadArchive(f"{self._name} is cut off after {self._seen_bytes} bytes; get it again, whole")
        if "manifest.json" in self._kept:
            return self._docker_names()
        if "index.json" in self._kept:
            return self._oci_names()
        if not self._ended:
            raise BadArchive(f"{self._name} is cut off after {self._seen_bytes} bytes; get it again, whole")
        raise BadArchive(
            f"{self._name} is no image archive: it holds neither manifest.json nor index.json;"
            " `docker save` writes image archives"
        )

    def _step(self) -> bool:
        """Take one thing off the buffer; False when more bytes are needed, or no more are wanted."""
        if self._ended:
            return False
        if self._keep is not None:
            if len(self._buffer) < self._skip_bytes:
                return False
            self._kept[self._keep] = bytes(self._buffer[: self._kept_bytes])
            del self._buffer[: self._skip_bytes]
            self._keep, self._skip_bytes = None, 0
        elif self._skip_bytes:
            gone = min(self._skip_bytes, len(self._buffer))
            del self._buffer[:gone]
            self._skip_bytes -= gone
            return not self._skip_bytes
        if len(self._buffer) < BLOCK_BYTES:
            return False
        self._header(bytes(self._buffer[:BLOCK_BYTES]))
        del self._buffer[:BLOCK_BYTES]
        return True

    def _header(self, block: bytes) -> None:
        if not any(block):
            self._ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as problem:
            what = "is broken in the middle" if self._entries else "is no tar archive (nor one packed by gzip or zstd)"
            raise BadArchive(f"{self._name} {what}: {problem}") from problem
        sized = info.type in _LONG_NAMES or info.isreg() or info.type == tarfile.CONTTYPE
        size_bytes = info.size if sized else 0
        self._skip_bytes = size_bytes + -size_bytes % BLOCK_BYTES
        if info.type in _LONG_NAMES:
            return
        path = info.name.removeprefix("./").rstrip("/")
        self._look(path)
        self._entries.add(path)
        if path in _KEPT and info.isreg():
            if size_bytes > _KEPT_LIMIT_BYTES:
                raise BadArchive(f"{self._name}: its {path} has {size_bytes} bytes, that cannot be right")
            self._keep, self._kept_bytes = path, size_bytes

    def _look(self, path: str) -> None:
        if path.partition("/")[0] in _ROOT_FOLDERS:
            raise BadArchive(
                f"{self._name} is no image archive but a file system: it begins with {path!r};"
                " `docker save` writes image archives, `docker import` makes an image of a file system"
            )

    def _docker_names(self) -> list[str]:
        try:
            images = msgspec.json.decode(self._kept["manifest.json"], type=list[_Named])
        except msgspec.DecodeError as problem:
            raise BadArchive(f"{self._name}: its manifest.json cannot be read: {problem}") from problem
        if not images:
            raise BadArchive(f"{self._name} holds no image: its manifest.json is empty")
        for image in images:
            for path in (image.config, *image.layers):
                if path not in self._entries:
                    raise BadArchive(f"{self._name} is not whole: {path} is missing; get it again, or save it again")
        self._image_count = len({image.config for image in images})
        return list(dict.fromkeys(tag for image in images for tag in image.tags or ()))

    def _oci_names(self) -> list[str]:
        try:
            index = msgspec.json.decode(self._kept["index.json"], type=_Index)
        except msgspec.DecodeError as problem:
            raise BadArchive(f"{self._name}: its index.json cannot be read: {problem}") from problem
        for pointer in index.manifests:
            if f"blobs/{pointer.digest.replace(':', '/')}" not in self._entries:
                raise BadArchive(f"{self._name} is not whole: blob {pointer.digest} is missing; save it again")
        self._image_count = len({pointer.digest for pointer in index.manifests})
        names = (pointer.annotations.get(_NAME_ANNOTATION) for pointer in index.manifests)
        return list(dict.fromkeys(name for name in names if name))
