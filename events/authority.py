"""Authority: which messages may be published on which kind of stream.

One table for every reader. A range writes its own outbox and progress stream, so every reader checks its messages:
a command, or a message of another role, is refused there. `events.codec.decode` asks this table
before it reads the data of an entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from events import messages as m

StreamKind = Literal[
    "images",
    "deployments",
    "deployer",
    "progress",
    "dead",
    "host_inbox",
    "inbox",
    "outbox",
    "range_progress",
    "range_dead",
]
#: Stream kind → the messages that may be published there. Dead letters are no messages.
ALLOWED: Mapping[StreamKind, tuple[type[Any], ...]] = {
    "images": (
        m.ImageBuilt,
        m.ImageImported,
        m.ImagePromoted,
        m.PushRequested,
        m.ImagePushed,
        m.ImagePushFailed,
        m.PushSkipped,
        m.ImageDeleted,
        m.ImageDeleteRequested,
        m.ImageDeleteRefused,
        m.CollectRequested,
        m.RegistryCollected,
        m.DeletionPlanned,
        m.RestoreRequested,
        m.RegistryRestored,
        m.CheckRequested,
        m.RetentionRequested,
        m.RetentionPlanned,
        m.AdoptRequested,
        m.ImagesAdopted,
        m.ReclaimRequested,
        m.ImagesReclaimed,
        m.FetchRequested,
        m.ImageFetched,
        m.DiskPressure,
    ),
    "deployments": (
        m.DeploymentRequested,
        m.DeploymentPlanned,
        m.DeploymentCancelRequested,
        m.DeploymentRetryRequested,
        m.DeploymentSucceeded,
        m.DeploymentFailed,
        m.DeploymentCancelled,
        m.RangeLimited,
        m.RangeContested,
    ),
    "deployer": (m.DeploymentAdvance, m.LayersMounted, m.MountFailed),
    "host_inbox": (
        m.MountRequested,
        m.UnmountRequested,
        m.LayersReleased,  # passed on by the layer-mounter of another host
        m.HostLookRequested,
        m.PushRequested,
        m.AdoptRequested,
        m.ReclaimRequested,
        m.FetchRequested,
    ),
    "inbox": (m.PullRequested, m.LoadOffered, m.SaveRequested, m.TransferCancelled),
    "outbox": (m.AgentStarted, m.ImagesChanged, m.TarRequested, m.ImageReady, m.ImageFailed, m.LayersReleased),
    "progress": (m.TransferProgress, m.CollectProgress),
    "range_progress": (m.TransferProgress,),
    "dead": (),
    "range_dead": (),
}
#: The streams that a range itself writes.
HOSTILE: tuple[StreamKind, ...] = ("outbox", "range_progress")
_OF_A_RANGE: Mapping[str, StreamKind] = {
    "inbox": "inbox",
    "outbox": "outbox",
    "progress": "range_progress",
    "dead": "range_dead",
}
_SHARED: Mapping[str, StreamKind] = {
    "images": "images",
    "deployments": "deployments",
    "deployer": "deployer",
    "progress": "progress",
    "dead": "dead",
}
_RANGE = re.compile(r"(?P<prefix>.*?):range:(?P<range>[A-Za-z0-9][A-Za-z0-9_.-]{0,127}):(?P<kind>[a-z]+)", re.DOTALL)
_HOST = re.compile(r".*:host:[A-Za-z0-9][A-Za-z0-9_.-]{0,127}:inbox", re.DOTALL)
_WIRES = {kind: frozenset(str(cls.__struct_config__.tag) for cls in classes) for kind, classes in ALLOWED.items()}


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for the entries of one stream: `allowed` message types (None: no entry is allowed); `hostile`: a range
    writes it.
    """

    allowed: frozenset[str] | None
    hostile: bool


@lru_cache(maxsize=4096)
def rules_of(stream: str) -> Rules:
    """The rules of a stream, found by its name under any key prefix."""
    return Rules(allowed_wires(stream), kind_of(stream) in HOSTILE)


def allowed_wires(stream: str) -> frozenset[str] | None:
    """The wire types that may be published on a stream; None for a stream that is not one of ours.

    A range may write any key whose name holds `:range:`. Such a key that is not one of a range's four streams
    belongs to nobody, and nothing is allowed on it.
    """
    kind = kind_of(stream)
    if kind is None:
        return frozenset() if ":range:" in stream else None
    return _WIRES[kind]


def kind_of(stream: str) -> StreamKind | None:
    """The kind of a stream, found by its name under any key prefix; None for a stream that is not one of ours."""
    if ":range:" not in stream:
        if _HOST.fullmatch(stream):
            return "host_inbox"
        return _SHARED.get(stream.rpartition(":")[2]) if ":" in stream else None
    found = _RANGE.fullmatch(stream)
    return _OF_A_RANGE.get(found["kind"]) if found else None


def letters_of(stream: str) -> str | None:
    """The dead-letter stream for a range's outbox (entries that the services refused); None for other streams.

    It lies outside the keys that the range itself may write.
    """
    found = _RANGE.fullmatch(stream)
    return f"{found['prefix']}:refused:{found['range']}" if found and found["kind"] == "outbox" else None
