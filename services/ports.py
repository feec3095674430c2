"""What the roles need of the outside. Adapters implement these; twins in memory implement them too.

Errors are those of `services.errors`. Everything that streams is an async context manager: leaving it ends the
request on the other side as well, whatever the reason for leaving.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from events.messages import Layer
from services.core.images import EngineImage, EngineInfo
from services.core.manifests import Descriptor, Manifest

Chunks = AsyncIterator[bytes]
BlobDigest = str | Callable[[], str]
"""Of what is compressed as it streams, the digest is known after the last chunk: then it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgress:
    """One line of an engine's progress. `layer` is the engine's short name of it, sizes are 0 where not told."""

    status: str
    layer: str | None = None
    done_bytes: int = 0
    total_bytes: int = 0


class Pingable(Protocol):
    """Something that can say whether it is there."""

    async def ping(self) -> None:
        """Return when it answers, raise a `services.errors.Unavailable` otherwise."""


class Engine(Pingable, Protocol):
    """One Docker engine. References are normalised strings; every call is bounded in time or watched for stalls."""

    async def info(self) -> EngineInfo: ...

    async def inspect(self, reference: str) -> EngineImage | None:
        """By reference, `repository@digest` or local id; None if the engine does not have it."""

    async def images(self) -> list[EngineImage]: ...

    async def tag(self, source: str, reference: str) -> None: ...

    async def untag(self, reference: str) -> None:
        """Remove one name, or an image without one by its local id.

        The image goes with its last name; a name that is not there is no error.
        """

    def pull(
        self, source: str, *, token: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]: ...

    def push(self, reference: str) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]: ...

    def load(self, archive: Chunks) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]:
        """`docker load`. The names loaded come as progress lines; what was really loaded is for `inspect` to say."""

    def save(self, references: Sequence[str]) -> AbstractAsyncContextManager[Chunks]:
        """`docker save`, by name or local id."""

    def build(
        self,
        context: Chunks,
        *,
        reference: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        pull: bool = False,
        no_cache: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Build a tar `context`; the iterator gives the log, line by line, and raises BuildFailed."""

    def import_root(
        self, archive: Chunks, *, reference: str
    ) -> AbstractAsyncContextManager[AsyncIterator[EngineProgress]]:
        """`docker import`: a root file system's tar becomes a one-layer image."""

    async def commit(self, container: str, *, reference: str, changes: Sequence[str] = ()) -> str:
        """`docker commit`, the container paused meanwhile. Returns the new image's local id."""


class Registry(Pingable, Protocol):
    """One OCI distribution registry, as its API has it. `repository` has no host; sizes are of the blob as stored."""

    @property
    def address(self) -> str:
        """`host:port` as ranges reach it."""

    async def blob_size(self, repository: str, digest: str) -> int | None: ...

    async def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Make a blob of repository `source` visible in `repository` without moving a byte; False if not there."""

    async def put_blob(self, repository: str, digest: BlobDigest, size_bytes: int | None, chunks: Chunks) -> None:
        """Upload; the registry itself verifies `digest`. An upload cut off leaves nothing visible."""

    def open_blob(self, repository: str, digest: str) -> AbstractAsyncContextManager[Chunks]: ...

    async def manifest(self, repository: str, reference: str) -> tuple[Descriptor, Manifest] | None:
        """By tag or digest, verified; None if it is not there."""

    async def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> Descriptor: ...

    async def delete_manifest(self, repository: str, digest: str) -> bool: ...

    def repositories(self) -> AsyncIterator[str]: ...

    async def tags(self, repository: str) -> list[str]: ...


class LayerSource(Protocol):
    """One way to read an image's config and layers out of the host's engine.

    A source gives the exact bytes whose sha256 is the digest asked for, or raises LayerUnreadable; callers verify.
    """

    @property
    def name(self) -> str: ...

    async def config(self, image: EngineImage) -> bytes:
        """The config JSON, byte for byte: its sha256 is the image id."""

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        """Bytes of the uncompressed layer tar if that is known without reading it."""

    def layer(self, image: EngineImage, diff_id: str) -> AbstractAsyncContextManager[Chunks]:
        """The uncompressed layer tar."""


@dataclass(frozen=True, slots=True)
class OpenLayer:
    """A layer on its way out of a source: `chunks` are to be read to their end before the next layer is asked for."""

    diff_id: str
    size_bytes: int | None
    chunks: Chunks


@runtime_checkable
class SequentialSource(LayerSource, Protocol):
    """A source that is one stream: a single layer costs a whole pass, so all wanted ones are taken in one pass."""

    def layers(
        self, image: EngineImage, diff_ids: Sequence[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[OpenLayer]]:
        """Each of `diff_ids` once, in the stream's own order. Raises LayerUnreadable if one of them does not come."""


@runtime_checkable
class BlobSource(LayerSource, Protocol):
    """A source that keeps layers as blobs, compressed or not, and can give them as they lie: nothing to compress."""

    async def blob(self, image: EngineImage, diff_id: str) -> Layer | None:
        """The layer as it is kept: digest, size and codec of the blob. None where layers are not kept as blobs."""

    def stored(self, layer: Layer) -> AbstractAsyncContextManager[Chunks]:
        """The blob's own bytes; callers verify its digest."""
