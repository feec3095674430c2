"""Ports: the interfaces of external dependencies, as Protocols. Adapters implement them; fakes in memory do so too.

Errors are those of `services.errors`. Everything that streams is an async context manager: leaving it ends the
request on the other side as well, whatever the reason for leaving.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from events.messages import Layer, PresentImage
from services.core.builds.options import BuildOptions
from services.core.images.image import EngineImage, EngineInfo, Store
from services.core.images.manifests import Descriptor, Manifest
from services.core.mounts.problems import MountProblem
from services.core.mounts.records import ShownLayers
from services.core.ranges.ranges import DesiredImage

Chunks = AsyncIterator[bytes]
BlobDigest = str | Callable[[], str]
"""Of what is compressed as it streams, the digest is known after the last chunk: then it is asked for."""


@runtime_checkable
class ThreadChunks(Protocol):
    """Chunks (`Chunks`) that a thread reads, which can hand them on itself: without the event loop between, moving a
    gigabyte takes half the processor time.
    """

    def __aiter__(self) -> Chunks: ...

    async def __anext__(self) -> bytes: ...

    async def each(self, step: Callable[[bytes], None]) -> None:
        """Call `step` with each chunk, in the reading thread; return at the end. No chunk was asked for before.

        Raises what reading raises, and what `step` raises, which ends it.
        """


#: What the Python API gives to other CYROID services, which read it by name: plain values, no type of ours.
PlainDict = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgress:
    """One line of an engine's progress.

    `layer` is the short id of a layer; sizes are in bytes, 0 where not reported.
    """

    status: str
    layer: str | None = None
    done_bytes: int = 0
    total_bytes: int = 0


class Pingable(Protocol):
    """A dependency that can be asked whether it is available."""

    async def ping(self) -> None:
        """Return when it answers; raise a `services.errors.Unavailable` otherwise."""


class SavedImages(Protocol):
    """Images that can be looked at and saved: what a push reads of an engine, near or far."""

    async def inspect(self, reference: str) -> EngineImage | None:
        """The image by reference, `repository@digest` or local id; None if the engine does not have it."""

    def save(self, references: Sequence[str]) -> AbstractAsyncContextManager[Chunks]:
        """`docker save`, by name or local id."""


@runtime_checkable
class Engine(Pingable, SavedImages, Protocol):
    """One Docker engine. References are normalised strings; every call is bounded in time or watched for stalls."""

    async def info(self) -> EngineInfo: ...

    async def images(self) -> list[EngineImage]: ...

    async def tag(self, source: str, reference: str) -> None: ...

    async def untag(self, reference: str) -> None:
        """Remove one name, or an image without a name by its local id.

        An image is removed with its last name. A name that does not exist is no error.
        """

    def pull(
        self, source: str, *, token: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]: ...

    def push(self, reference: str) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]: ...

    def load(self, archive: Chunks) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]:
        """`docker load`. The loaded names come as progress lines; only `inspect` proves what was loaded."""

    def build(
        self, context: Chunks, *, reference: str, options: BuildOptions | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Build a tar `context`; the iterator gives the log, line by line. Raises BuildFailed."""

    def import_root(
        self, archive: Chunks, *, reference: str
    ) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]:
        """`docker import`: a root file system's tar becomes a one-layer image."""

    async def commit(self, container: str, *, reference: str, changes: Sequence[str] = ()) -> str:
        """`docker commit`; the container is paused meanwhile. Returns the new image's local id."""


class Registry(Pingable, Protocol):
    """One OCI distribution registry. `repository` is without a host; sizes are bytes of the blob as stored."""

    @property
    def address(self) -> str:
        """`host:port` as ranges reach it."""

    async def blob_size(self, repository: str, digest: str) -> int | None: ...

    async def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Mount a blob of repository `source` in `repository`, without moving a byte. False if it is not there."""

    async def put_blob(self, repository: str, digest: BlobDigest, size_bytes: int | None, chunks: Chunks) -> None:
        """Upload a blob; the registry verifies `digest`. An upload that is cut off leaves nothing visible."""

    def open_blob(self, repository: str, digest: str) -> AbstractAsyncContextManager[Chunks]: ...

    async def manifest(self, repository: str, reference: str) -> tuple[Descriptor, Manifest] | None:
        """By tag or digest, verified; None if it is not there."""

    async def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> Descriptor: ...

    async def delete_manifest(self, repository: str, digest: str) -> bool: ...

    def repositories(self) -> AsyncIterator[str]: ...

    async def tags(self, repository: str) -> list[str]: ...


class LayerSource(Protocol):
    """A layer source: one way to read an image's config and layers out of the host's engine.

    A source gives the exact bytes whose sha256 is the digest asked for, or raises LayerUnreadable; callers verify.
    """

    @property
    def name(self) -> str: ...

    async def config(self, image: EngineImage) -> bytes:
        """The config JSON, byte for byte: its sha256 is the image id."""

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        """The size in bytes of the uncompressed layer tar, if it is known without reading the layer."""

    def layer(self, image: EngineImage, diff_id: str) -> AbstractAsyncContextManager[Chunks]:
        """The uncompressed layer tar, in chunks."""


@dataclass(frozen=True, slots=True)
class OpenLayer:
    """A layer that a source gives: `chunks` are to be read to their end before the next layer is asked for."""

    diff_id: str
    size_bytes: int | None
    chunks: Chunks


@runtime_checkable
class SequentialSource(LayerSource, Protocol):
    """A layer source that is one stream: a single layer costs a whole pass, so all wanted layers are read in one
    pass.
    """

    def layers(
        self, image: EngineImage, diff_ids: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[OpenLayer]]:
        """Each of `diff_ids` once, in the stream's own order. Raises LayerUnreadable if one of them is missing."""


@runtime_checkable
class BlobSource(LayerSource, Protocol):
    """A layer source that keeps layers as blobs, compressed or not, and gives them as they are stored."""

    async def blob(self, image: EngineImage, diff_id: str) -> Layer | None:
        """Digest, size in bytes and codec of the stored blob. None where the layer is not kept as a blob."""

    def stored(self, layer: Layer) -> AbstractAsyncContextManager[Chunks]:
        """The stored bytes of the blob; callers verify its digest."""


class LayerMounts(Protocol):
    """Mounts of the registry's layers as folders that ranges see. Every call may be repeated."""

    async def show(
        self,
        range_id: str,
        layers: Sequence[Layer],
        *,
        grant: str,
        engine_id: str | None,
        store: Store = "containerd",
        read: Callable[[str, int], None] = ...,
    ) -> None:
        """Make layers visible for `grant`, a transfer's id. Raises LayersNotMounted, and then adds none of them.

        `engine_id` is the range's engine that asks, `store` its store; what was granted to another engine is hidden.
        While layers are unpacked, which takes a while, `read` is told a blob's digest and how much of it was read.
        """

    async def prepare(self, layer: Layer) -> None:
        """Make beforehand what mounting this layer needs, whatever the store. Raises LayersNotMounted.

        It changes nothing that a range sees, may be slow, and lasts as long as the registry has the layer.
        """

    async def release(self, range_id: str, grants: Mapping[str, str]) -> None:
        """Take these grants away, by folder name, and hide the folders that have none left."""

    async def engine_is(self, range_id: str, engine_id: str, images: Sequence[PresentImage] = ()) -> None:
        """Hide what another engine of this range was granted, but for the seeded ones among its `images`."""

    async def seed(self, range_id: str, wanted: Sequence[DesiredImage]) -> None:
        """Show the range what its next engine starts with: those of these images whose layers it is shown.

        Raises LayersNotMounted.
        """

    async def forget(self, range_id: str) -> None:
        """Hide everything from a range that no longer exists."""

    async def shown(self) -> dict[str, ShownLayers]:
        """What each range is shown, by its id."""

    async def restore(self) -> list[MountProblem]:
        """Repair what is mounted; what could not be repaired, and layers whose blobs are not what they were.

        Raises LayersNotMounted where nothing can be mounted at all.
        """


class LayerPlacer(Protocol):
    """Takes folders that the host shows a range into its engine's store as layers. Every call may be repeated."""

    def using(self) -> AbstractAsyncContextManager[None]:
        """Held while a transfer works with the engine; `place` may restart it when no other holds this."""

    async def available(self) -> bool:
        """Whether the host shows folders here, and this engine can take them."""

    async def accept(self, transfer_id: str, layers: Sequence[Layer]) -> None:
        """Register these layers for a transfer; until `settle` none of them counts as unused."""

    async def place(self, transfer_id: str, layers: Sequence[Layer], source: str) -> None:
        """Put the layers into the engine's store, as if pulled from `source`; the caller is in `using`.

        Raises LayersNotMounted; `settle` removes what was placed by then.
        """

    async def settle(self, transfer_id: str) -> None:
        """End the transfer: remove what no image of the engine uses."""

    async def unused(self) -> dict[str, str]:
        """Grants to be given back, one of a folder at a time: folder name → a transfer that it was shown for.

        Those of folders that the engine does not use, and of folders in use those that a later transfer's replaces.
        """

    async def forget(self, grants: Mapping[str, str]) -> None:
        """Forget grants that the host was told about; a folder that was shown for another transfer too stays."""

    async def unreadable(self) -> tuple[str, ...]:
        """Diff IDs of layers in the engine's store that stand on folders which are not mounted here, or covered."""
