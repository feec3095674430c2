"""Layer source: the engine's `docker save`, split while it streams. Works with every engine, mounts nothing.

    before 25     <v1 id>/layer.tar …, <image id>.json, manifest.json: layers do not say which they are
    25 and later  blobs/sha256/<diff ID> …: layers are called by their diff ID
    containerd    blobs/sha256/<digest> …: blobs as the store has them, compressed or not

A layer that says what it is goes straight through. One that does not is written to a file in the scratch folder while
it is hashed, at most one at a time, and goes on from there if it is wanted. The config may come last, so it is asked
for in a pass of its own unless an earlier pass came by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import IO

from services.adapters.chunk_streams import from_thread
from services.adapters.tar_stream import TarStream
from services.content.decompression import unpacked
from services.core.archives.tar_headers import Header
from services.core.images.image import EngineImage
from services.core.images.manifests import CONFIG_LIMIT_BYTES, ImageConfig, sha256
from services.errors import BadArchive, BadInput, LayerDamaged, LayerUnreadable, NoSpace, NotFound, TransferFailed
from services.ports import Chunks, OpenLayer, SavedImages

#: What a classic engine says of a layer whose files are not what its tar-split says.
_DAMAGED = "could not verify layer data"
_CONFIGS_KEPT = 32
_COPY_BYTES = 1 << 20
_BLOB = "blobs/sha256/"
_NO_SPACE_LEFT = 28


class SaveStream:
    """The `SequentialSource` port on any engine. `scratch` is a folder for one layer at a time, made when needed.

    Without one, or where it cannot be made, a layer lies where the system keeps temporary files. Of an archive longer
    than `limit_bytes` nothing more is read (LayerUnreadable): for engines that are not trusted.
    """

    def __init__(self, engine: SavedImages, scratch: Path | None = None, *, limit_bytes: int | None = None) -> None:
        self._engine = engine
        self._scratch = scratch
        self._limit_bytes = limit_bytes
        self._configs: OrderedDict[str, bytes] = OrderedDict()

    @property
    def name(self) -> str:
        return "save"

    async def config(self, image: EngineImage) -> bytes:
        if (known := self._configs.get(image.local_id)) is not None:
            return known
        async with self._open(image) as tar:
            while (entry := await tar.next()) is not None:
                if entry.is_file and not entry.name.endswith("layer.tar"):
                    await self._note_config(tar, image)
                if (found := self._configs.get(image.local_id)) is not None:
                    return found
        raise LayerUnreadable(f"save {image.local_id}: the archive has no config of this image")

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        return None

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        async with self.layers(image, [diff_id]) as opened:
            async for layer in opened:
                yield layer.chunks
                return

    @asynccontextmanager
    async def layers(self, image: EngineImage, diff_ids: Sequence[str]) -> AsyncIterator[AsyncIterator[OpenLayer]]:
        """All wanted layers in one pass.

        What a layer's reader leaves unread is skipped when the next one is asked for.
        """
        async with (
            self._open(image) as tar,
            aclosing(self._split(tar, image, dict.fromkeys(diff_ids))) as opened,
        ):
            yield opened

    async def _split(
        self, tar: TarStream, image: EngineImage, wanted: dict[str, None]
    ) -> AsyncGenerator[OpenLayer, None]:
        while wanted and (entry := await tar.next()) is not None:
            if not entry.is_file:
                continue
            diff_id = "sha256:" + entry.name.removeprefix(_BLOB)
            if diff_id in wanted:
                del wanted[diff_id]
                yield OpenLayer(diff_id, entry.content_bytes, tar.content())
            elif await self._may_be_layer(tar, entry, image):
                async with self._spooled(tar) as (diff_id, size_bytes, file):
                    if diff_id in wanted:
                        del wanted[diff_id]
                        async with from_thread(lambda: _from_start(file)) as chunks:
                            yield OpenLayer(diff_id, size_bytes, chunks)
        if wanted:
            raise LayerUnreadable(f"save {image.local_id}: the archive lacks the layers {', '.join(wanted)}")
        while image.local_id not in self._configs and (entry := await tar.next()) is not None:
            if entry.is_file and not entry.name.endswith("layer.tar"):
                await self._note_config(tar, image)

    async def _may_be_layer(self, tar: TarStream, entry: Header, image: EngineImage) -> bool:
        """Whether an entry that is not called by a wanted diff ID may be a wanted layer all the same."""
        if entry.name.endswith("/layer.tar"):
            return True
        if not entry.name.startswith(_BLOB):
            await self._note_config(tar, image)
            return False
        if (await tar.peek(1)) == b"{":
            await self._note_config(tar, image)
            return False
        # A classic store's blobs are called by their diff ID, so this one is no layer of this image.
        return image.image_id is None

    @asynccontextmanager
    async def _spooled(self, tar: TarStream) -> AsyncIterator[tuple[str, int, IO[bytes]]]:
        """The entry at hand, unpacked, in a file that goes when this is left; its diff ID and size before it."""
        state = hashlib.sha256()
        folder = await asyncio.to_thread(self._folder)
        try:
            with tempfile.TemporaryFile(dir=folder, prefix="layer-", buffering=0) as file:
                async for chunk in self._bounded(unpacked(tar.content(), "a layer of the archive")):
                    await asyncio.to_thread(_append, file, state.update, chunk)
                yield f"sha256:{state.hexdigest()}", file.tell(), file
        except OSError as problem:
            if problem.errno == _NO_SPACE_LEFT:
                raise NoSpace(f"no room for a layer in {folder}: make some, or set CYROID_SPOOL_FOLDER") from problem
            raise LayerUnreadable(f"a layer cannot be kept in {folder}: {problem}") from problem

    def _folder(self) -> Path:
        if self._scratch is not None:
            with contextlib.suppress(OSError):
                self._scratch.mkdir(parents=True, exist_ok=True)
                return self._scratch
        return Path(tempfile.gettempdir())

    @asynccontextmanager
    async def _open(self, image: EngineImage) -> AsyncIterator[TarStream]:
        async with AsyncExitStack() as stack:
            try:
                chunks = await stack.enter_async_context(self._engine.save([image.local_id]))
            except (NotFound, TransferFailed) as problem:
                # The engine itself says no: the image is gone, its store is damaged, or it has nothing to save.
                if _DAMAGED in str(problem):
                    raise LayerDamaged(
                        f"{problem}. A file of that layer was changed in the engine's folders, or came as a sparse one:"
                        " pull or build the image again, without sparse files in a tar"
                    ) from problem
                raise LayerUnreadable(str(problem)) from problem
            try:
                yield TarStream(self._bounded(chunks), f"save {image.local_id}")
            except BadArchive as problem:
                raise LayerUnreadable(str(problem)) from problem

    async def _bounded(self, chunks: Chunks) -> AsyncGenerator[bytes, None]:
        read_bytes = 0
        async for chunk in chunks:
            read_bytes += len(chunk)
            if self._limit_bytes is not None and read_bytes > self._limit_bytes:
                raise LayerUnreadable(
                    f"the engine's archive, or a layer of it, has more than {self._limit_bytes} bytes"
                )
            yield chunk

    async def _note_config(self, tar: TarStream, image: EngineImage) -> None:
        """Keep the entry at hand if it is the image's config."""
        content = await tar.read(CONFIG_LIMIT_BYTES)
        if content is None or not content.startswith(b"{"):
            return
        if image.image_id is None:
            try:
                is_it = ImageConfig.parse(content).rootfs.diff_ids == image.diff_ids
            except BadInput:
                return
        else:
            is_it = sha256(content) == image.image_id
        if is_it:
            self._configs[image.local_id] = content
            if len(self._configs) > _CONFIGS_KEPT:
                self._configs.popitem(last=False)


def _append(file: IO[bytes], update: Callable[[bytes], object], chunk: bytes) -> None:
    update(chunk)
    file.write(chunk)


def _from_start(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(_COPY_BYTES):
        yield block
