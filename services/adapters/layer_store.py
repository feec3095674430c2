"""Layer source: the folders of a classic engine on overlay2, read as they lie (mounted read-only is enough).

    image/overlay2/imagedb/content/sha256/<image id>      the config
    image/overlay2/layerdb/sha256/<chain id>/cache-id     which folder holds the layer's files
    image/overlay2/layerdb/sha256/<chain id>/diff         its diff ID
    image/overlay2/layerdb/sha256/<chain id>/tar-split.json.gz
    overlay2/<cache id>/diff/                             the files

Tar-split and files together give the tar that the layer came as, byte for byte. Nothing is written, no temporary copy
is made, only the layers asked for are read, several at once. The store may change under the reader (an image removed):
then a file is missing or short, or the digest is wrong, and the layer is unreadable here.
"""

from __future__ import annotations

import asyncio
import os
import re
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from services.adapters.chunk_streams import from_thread
from services.adapters.diff_folder import DiffFolder
from services.core.archives.tar_split import SEGMENT, Entry, decode, has_sparse_file, tar_size
from services.core.images.chain_ids import chain_ids
from services.core.images.image import EngineImage
from services.core.images.manifests import CONFIG_LIMIT_BYTES, check_config_size, sha256
from services.errors import LayerDamaged, LayerUnreadable
from services.ports import Chunks

CHUNK_BYTES = 1 << 20
_SMALL_BYTES = 512 << 10
_COMPRESSED_BYTES = 64 << 10
_HEX = re.compile(r"[0-9a-f]{64}")
#: Folders of layers that were pulled, loaded or committed; and of those that BuildKit made (buildkit: `identity`).
_CACHE_ID = re.compile(r"[0-9a-f]{64}|[0-9a-z]{25}")


class LayerStore:
    """The `LayerSource` port on a folder that is (a mount of) an engine's data-root."""

    def __init__(self, root: Path) -> None:
        self._images = root / "image/overlay2/imagedb/content/sha256"
        self._layers = root / "image/overlay2/layerdb/sha256"
        self._folders = root / "overlay2"
        self._sizes: dict[str, int] = {}

    @property
    def name(self) -> str:
        return "layers"

    async def config(self, image: EngineImage) -> bytes:
        if image.image_id is None:
            raise LayerUnreadable(f"the engine does not tell the config digest of {image.local_id}")
        with _unreadable(f"the config {image.image_id} in {self._images}"):
            content = await asyncio.to_thread(_read_config, self._images / _hex(image.image_id), image.image_id)
        if sha256(content) != image.image_id:
            raise LayerUnreadable(f"the config of {image.image_id} in {self._images} is not what its name says")
        return content

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        """Exact; reads the layer's list of files, not the files. Raises LayerDamaged for one with sparse files."""
        if diff_id not in self._sizes:
            self._sizes[diff_id] = await asyncio.to_thread(self._size, image, diff_id)
        return self._sizes[diff_id]

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        async with from_thread(lambda: self.read(image, diff_id)) as chunks:
            yield chunks

    def read(self, image: EngineImage, diff_id: str) -> Iterator[bytes]:
        """The layer tar in chunks of about `CHUNK_BYTES`; blocking. Raises LayerUnreadable."""
        with _unreadable(f"layer {diff_id} of {image.local_id} in {self._layers}"):
            described = self._find(image, diff_id)
            cache_id = _folder_name(_read(described / "cache-id", 128).decode().strip())
            with DiffFolder(self._folders / cache_id / "diff") as folder, _list(described) as blocks:
                yield from _assemble(decode(blocks), folder)

    def _size(self, image: EngineImage, diff_id: str) -> int:
        with (
            _unreadable(f"layer {diff_id} of {image.local_id} in {self._layers}"),
            _list(self._find(image, diff_id)) as blocks,
        ):
            return tar_size(_without_sparse(decode(blocks), diff_id))

    def _find(self, image: EngineImage, diff_id: str) -> Path:
        """The layer's entry in the layer database; a layer that occurs twice has one for each place."""
        for chain_id, one in zip(chain_ids(image.diff_ids), image.diff_ids, strict=True):
            if one == diff_id:
                described = self._layers / _hex(chain_id)
                if _read(described / "diff", 128).decode().strip() == diff_id:
                    return described
        raise ValueError("the store has no such layer")


def _without_sparse(batches: Iterable[list[Entry]], diff_id: str) -> Iterator[list[Entry]]:
    """Raises LayerDamaged for a layer with a sparse file: not even the engine gets the same tar out of it again."""
    for batch in batches:
        if has_sparse_file(batch):
            raise LayerDamaged(
                f"layer {diff_id} came with sparse files, which no engine gives back as they came: build or import the"
                " image again, without sparse files in a tar"
            )
        yield batch


def _assemble(batches: Iterable[list[Entry]], folder: DiffFolder) -> Iterator[bytes]:
    """Headers and small files gathered, large files in blocks as they are read: few, large chunks either way."""
    pieces: list[bytes] = []
    gathered = 0
    for batch in batches:
        for entry in batch:
            if entry.type == SEGMENT:
                piece = entry.payload or b""
            elif entry.size == 0:
                continue
            elif entry.size <= _SMALL_BYTES:
                piece = _small_file(folder, entry)
            else:
                if pieces:
                    yield b"".join(pieces)
                pieces, gathered = [], 0
                yield from _large_file(folder, entry)
                continue
            pieces.append(piece)
            gathered += len(piece)
            if gathered >= CHUNK_BYTES:
                yield b"".join(pieces)
                pieces, gathered = [], 0
    if pieces:
        yield b"".join(pieces)


def _small_file(folder: DiffFolder, entry: Entry) -> bytes:
    file = folder.open(entry.path)
    try:
        content = os.read(file, entry.size)
    finally:
        os.close(file)
    if len(content) != entry.size:
        raise ValueError(_short(entry, len(content)))
    return content


def _large_file(folder: DiffFolder, entry: Entry) -> Iterator[bytes]:
    file = folder.open(entry.path)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        left = entry.size
        while left:
            block = os.read(file, min(CHUNK_BYTES, left))
            if not block:
                raise ValueError(_short(entry, entry.size - left))
            left -= len(block)
            yield block
    finally:
        os.close(file)


def _short(entry: Entry, found: int) -> str:
    return f"its file {entry.path!r} has {found} of {entry.size} bytes: the store changed meanwhile"


@contextmanager
def _list(described: Path) -> Iterator[Iterator[bytes]]:
    """The text of a layer's tar-split, in blocks."""
    with (described / "tar-split.json.gz").open("rb", buffering=0) as file:
        yield _inflate(iter(lambda: file.read(_COMPRESSED_BYTES), b""))


def _inflate(compressed: Iterator[bytes]) -> Iterator[bytes]:
    gzip = zlib.decompressobj(wbits=31)
    for block in compressed:
        waiting = block
        while waiting:
            if text := gzip.decompress(waiting, CHUNK_BYTES):
                yield text
            waiting = gzip.unconsumed_tail
    if not gzip.eof:
        raise EOFError("its list of files (tar-split.json.gz) is cut off")


@contextmanager
def _unreadable(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as problem:
        raise LayerUnreadable(f"cannot read {what}: {problem}") from problem


def _read_config(path: Path, image_id: str) -> bytes:
    check_config_size(path.stat().st_size, image_id)
    return _read(path, CONFIG_LIMIT_BYTES)


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ValueError(f"{path} is larger than the {limit_bytes} bytes that it may be")
    return content


def _folder_name(cache_id: str) -> str:
    """A layer's folder below `overlay2`. Raises ValueError for what could name another one."""
    if _CACHE_ID.fullmatch(cache_id) is None:
        raise ValueError(f"{cache_id!r} is no cache id")
    return cache_id


def _hex(digest: str) -> str:
    """The part of a digest that names a file. Raises ValueError for what could name another one."""
    plain = digest.removeprefix("sha256:")
    if _HEX.fullmatch(plain) is None:
        raise ValueError(f"{digest!r} is no digest")
    return plain
