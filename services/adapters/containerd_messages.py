"""Messages of containerd's API that placing layers needs (`api/services/`: snapshots, content, leases).

Only the fields that are sent or read here are declared; protobuf readers skip the others. A `map<string, string>` is
on the wire what a list of entries is (protobuf encoding, "Maps").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pure_protobuf.annotations import Field
from pure_protobuf.message import BaseMessage

#: `WriteAction.COMMIT`: end the write and keep the content under its digest.
COMMIT = 2
#: `Kind.COMMITTED`: a snapshot that is a layer.
COMMITTED = 3


@dataclass
class Empty(BaseMessage):
    """An answer without content."""


@dataclass
class Label(BaseMessage):
    """One entry of a map of labels."""

    key: Annotated[str, Field(1)] = ""
    value: Annotated[str, Field(2)] = ""


def labels(values: Mapping[str, str]) -> list[Label]:
    """A mapping as the entries that stand for it."""
    return [Label(key, value) for key, value in values.items()]


@dataclass
class Mount(BaseMessage):
    """How a snapshot is mounted: a `bind` of `source`, or an `overlay` with its folders among the `options`."""

    type: Annotated[str, Field(1)] = ""
    source: Annotated[str, Field(2)] = ""
    options: Annotated[list[str], Field(4)] = field(default_factory=list)


@dataclass
class PrepareRequest(BaseMessage):
    """A new, writable snapshot `key` on top of the committed `parent`."""

    snapshotter: Annotated[str, Field(1)] = ""
    key: Annotated[str, Field(2)] = ""
    parent: Annotated[str, Field(3)] = ""
    labels: Annotated[list[Label], Field(4)] = field(default_factory=list)


@dataclass
class MountsRequest(BaseMessage):
    """How the writable snapshot `key` is mounted; also the question whether a snapshot is there, or to remove it."""

    snapshotter: Annotated[str, Field(1)] = ""
    key: Annotated[str, Field(2)] = ""


@dataclass
class MountsAnswer(BaseMessage):
    """The mounts of one snapshot."""

    mounts: Annotated[list[Mount], Field(1)] = field(default_factory=list)


@dataclass
class CommitRequest(BaseMessage):
    """Make the writable snapshot `key` the layer `name`."""

    snapshotter: Annotated[str, Field(1)] = ""
    name: Annotated[str, Field(2)] = ""
    key: Annotated[str, Field(3)] = ""
    labels: Annotated[list[Label], Field(4)] = field(default_factory=list)


@dataclass
class SnapshotInfo(BaseMessage):
    """What a snapshot is; `kind` as in the API's enumeration."""

    name: Annotated[str, Field(1)] = ""
    parent: Annotated[str, Field(2)] = ""
    kind: Annotated[int, Field(3)] = 0


@dataclass
class StatAnswer(BaseMessage):
    """A snapshot that is there."""

    info: Annotated[SnapshotInfo, Field(1)] = field(default_factory=SnapshotInfo)


@dataclass
class BlobInfo(BaseMessage):
    """A blob by digest; `size` in bytes."""

    digest: Annotated[str, Field(1)] = ""
    size: Annotated[int, Field(2)] = 0


@dataclass
class InfoRequest(BaseMessage):
    """Is this blob there?"""

    digest: Annotated[str, Field(1)] = ""


@dataclass
class InfoAnswer(BaseMessage):
    """A blob that is there."""

    info: Annotated[BlobInfo, Field(1)] = field(default_factory=BlobInfo)


@dataclass
class WriteRequest(BaseMessage):
    """One message of a write. `total` and `expected` are size and digest of the whole blob."""

    action: Annotated[int, Field(1)] = 0
    ref: Annotated[str, Field(2)] = ""
    total: Annotated[int, Field(3)] = 0
    expected: Annotated[str, Field(4)] = ""
    offset: Annotated[int, Field(5)] = 0
    data: Annotated[bytes, Field(6)] = b""
    labels: Annotated[list[Label], Field(7)] = field(default_factory=list)


@dataclass
class WriteAnswer(BaseMessage):
    """Where a write stands."""

    action: Annotated[int, Field(1)] = 0
    offset: Annotated[int, Field(4)] = 0
    total: Annotated[int, Field(5)] = 0
    digest: Annotated[str, Field(6)] = ""


@dataclass
class Lease(BaseMessage):
    """What keeps content from being collected while it is put together."""

    id: Annotated[str, Field(1)] = ""
    labels: Annotated[list[Label], Field(3)] = field(default_factory=list)


@dataclass
class CreateLeaseRequest(BaseMessage):
    """A new lease with a name of ours."""

    id: Annotated[str, Field(1)] = ""
    labels: Annotated[list[Label], Field(3)] = field(default_factory=list)


@dataclass
class CreateLeaseAnswer(BaseMessage):
    """The lease that was made."""

    lease: Annotated[Lease, Field(1)] = field(default_factory=Lease)


@dataclass
class DeleteLeaseRequest(BaseMessage):
    """Give up a lease; `sync`: answer after what nothing else holds was collected."""

    id: Annotated[str, Field(1)] = ""
    sync: Annotated[bool, Field(2)] = False


@dataclass
class ListLeasesRequest(BaseMessage):
    """Leases that one of `filters` fits; all without one."""

    filters: Annotated[list[str], Field(1)] = field(default_factory=list)


@dataclass
class ListLeasesAnswer(BaseMessage):
    """The leases found."""

    leases: Annotated[list[Lease], Field(1)] = field(default_factory=list)
