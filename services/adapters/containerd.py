"""A client of the containerd that an engine keeps its images in: leases, snapshots and blobs, over its socket.

Only what it takes to make a folder that is there already a layer of the store. Every call is bounded in time. Content
that is put together under a lease is not collected before the lease ends; the lease carries an end of its own, so that
what a killed caller left is collected too (containerd docs/garbage-collection.md, `containerd.io/gc.expire`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from pure_protobuf.message import BaseMessage

from services.adapters import containerd_messages as m
from services.errors import LayersNotMounted

#: The namespace in which Docker keeps its images.
NAMESPACE = "moby"
SNAPSHOTTER = "overlayfs"
_SECONDS = 20.0
_FOLDER = re.compile(r"(?:^|upperdir=)(?P<folder>/.+/snapshots/\d+)/fs$")

Answer = TypeVar("Answer", bound=BaseMessage)


class _Codec(CodecBase):
    """Protobuf by the messages' own encoding."""

    __content_subtype__ = "proto"

    def encode(self, message: BaseMessage, message_type: type[BaseMessage]) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: type[Answer]) -> Answer:
        try:
            return message_type.loads(data)
        except Exception as problem:  # the library has no error of its own for bytes that are no message
            raise ValueError(f"this is no {message_type.__name__}: {problem!r}") from problem


class Containerd:
    """One connection. `open` makes it. Raises LayersNotMounted when containerd is unavailable, too slow, or refuses."""

    def __init__(self, channel: Channel, socket: Path) -> None:
        self._channel = channel
        self._socket = socket

    @classmethod
    @asynccontextmanager
    async def open(cls, socket: Path) -> AsyncIterator[Containerd]:
        channel = Channel(path=str(socket), codec=_Codec())
        try:
            yield cls(channel, socket)
        finally:
            channel.close()

    # ---- leases ----

    async def lease(self, name: str, seconds: float) -> None:
        """Make the lease `name`, which ends by itself after `seconds`. One that is there already is kept."""
        until = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        request = m.CreateLeaseRequest(id=name, labels=m.labels({"containerd.io/gc.expire": until}))
        await self._call("leases", "Leases/Create", request, m.CreateLeaseAnswer, forgiven=Status.ALREADY_EXISTS)

    async def leases(self, prefix: str) -> list[str]:
        """Names of the leases that begin with `prefix`."""
        found = await self._call("leases", "Leases/List", m.ListLeasesRequest(), m.ListLeasesAnswer)
        return [lease.id for lease in found.leases if lease.id.startswith(prefix)] if found else []

    async def end_lease(self, name: str) -> None:
        """Give it up: what nothing else holds is collected before this returns. One that is gone is no error."""
        request = m.DeleteLeaseRequest(id=name, sync=True)
        await self._call("leases", "Leases/Delete", request, m.Empty, forgiven=Status.NOT_FOUND)

    # ---- snapshots ----

    async def has_layer(self, chain_id: str) -> bool:
        """Whether the store has the layers down to the base that this chain ID stands for."""
        request = m.MountsRequest(snapshotter=SNAPSHOTTER, key=chain_id)
        found = await self._call("snapshots", "Snapshots/Stat", request, m.StatAnswer, forgiven=Status.NOT_FOUND)
        return found is not None and found.info.kind == m.COMMITTED

    async def prepare(self, key: str, parent: str, lease: str) -> Path | None:
        """The folder of a new writable snapshot (`…/snapshots/N`); None if the key is taken."""
        request = m.PrepareRequest(snapshotter=SNAPSHOTTER, key=key, parent=parent)
        made = await self._call(
            *("snapshots", "Snapshots/Prepare", request, m.MountsAnswer), lease=lease, forgiven=Status.ALREADY_EXISTS
        )
        return _folder(made.mounts, key) if made else None

    async def commit(self, chain_id: str, key: str, lease: str) -> bool:
        """Make a writable snapshot a layer; False if the store got that layer meanwhile."""
        request = m.CommitRequest(snapshotter=SNAPSHOTTER, name=chain_id, key=key)
        done = await self._call(
            *("snapshots", "Snapshots/Commit", request, m.Empty), lease=lease, forgiven=Status.ALREADY_EXISTS
        )
        return done is not None

    async def remove(self, key: str) -> None:
        """Remove a snapshot that nothing is built on. One that is not there is no error."""
        request = m.MountsRequest(snapshotter=SNAPSHOTTER, key=key)
        await self._call("snapshots", "Snapshots/Remove", request, m.Empty, forgiven=Status.NOT_FOUND)

    # ---- blobs ----

    async def has_blob(self, digest: str) -> bool:
        """Whether the store knows the blob."""
        request = m.InfoRequest(digest=digest)
        return await self._call("content", "Content/Info", request, m.InfoAnswer, forgiven=Status.NOT_FOUND) is not None

    async def adopt_blob(self, digest: str, size_bytes: int, lease: str, values: Mapping[str, str]) -> None:
        """Register a blob whose file lies in the store's folder already: a write that is committed without data."""
        ref = f"mounted-{digest}"
        request = m.WriteRequest(
            action=m.COMMIT, ref=ref, total=size_bytes, expected=digest, offset=size_bytes, labels=m.labels(values)
        )
        await self._write(request, lease)

    async def _write(self, request: m.WriteRequest, lease: str) -> None:
        method = StreamStreamMethod(
            self._channel, "/containerd.services.content.v1.Content/Write", m.WriteRequest, m.WriteAnswer
        )
        with _errors(self._socket):
            async with asyncio.timeout(_SECONDS), method.open(metadata=_metadata(lease)) as stream:
                try:
                    await stream.send_message(request, end=True)
                    await stream.recv_message()
                    await stream.recv_trailing_metadata()
                except GRPCError as problem:
                    if problem.status is not Status.ALREADY_EXISTS:
                        raise

    # ---- inside ----

    async def _call(
        self,
        service: str,
        method: str,
        request: BaseMessage,
        answer: type[Answer],
        *,
        lease: str | None = None,
        forgiven: Status | None = None,
    ) -> Answer | None:
        """One call; None for the status that is no error here."""
        name = f"/containerd.services.{service}.v1.{method}"
        call = UnaryUnaryMethod(self._channel, name, type(request), answer)
        with _errors(self._socket):
            try:
                return await call(request, timeout=_SECONDS, metadata=_metadata(lease))
            except GRPCError as problem:
                if problem.status is not forgiven:
                    raise
        return None


def _metadata(lease: str | None) -> dict[str, str]:
    """Headers of a call: the namespace, and the lease that holds what the call makes."""
    return {"containerd-namespace": NAMESPACE, **({"containerd-lease": lease} if lease else {})}


def _folder(mounts: Sequence[m.Mount], key: str) -> Path:
    """`…/snapshots/N` of a writable snapshot: what it binds, or the upper folder of its overlay."""
    for mount in mounts:
        for place in (mount.source, *mount.options):
            if found := _FOLDER.search(place):
                return Path(found["folder"])
    raise LayersNotMounted(f"containerd does not say where it keeps the snapshot {key}: {mounts}")


@contextmanager
def _errors(socket: Path) -> Iterator[None]:
    try:
        yield
    except (GRPCError, StreamTerminatedError, OSError, TimeoutError, ValueError) as problem:
        raise LayersNotMounted(f"containerd at {socket} cannot take layers: {problem!r}") from problem
