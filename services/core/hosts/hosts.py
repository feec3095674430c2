"""Host records: which hosts an installation has, what each one's engine is, and whether it is alive.

    {prefix}:host-record:<host>     HostRecord, as its registry-pusher last reported
    {prefix}:index:hosts            host ids by the time they first reported
    {prefix}:host:<host>:alive      the same HostRecord as a heartbeat, which expires (`Streams.host_alive`)

A host is known by its id: `CYROID_HOST_ID`, or the id of its engine, kept in the data folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from events.malformed import MALFORMED
from events.records import Key

#: As `events.messages.Identifier`.
HOST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
#: The host of installations that never named one.
LOCAL = "local"
BEAT_SECONDS = 5.0
#: A host counts as gone after three beats missed.
GONE_SECONDS = 3 * BEAT_SECONDS + 1.0


@dataclass(frozen=True, slots=True)
class HostKeys:
    """Names under a key prefix."""

    prefix: str

    def record(self, host: str) -> Key[HostRecord]:
        return Key(f"{self.prefix}:host-record:{host}", HostRecord)

    @property
    def all(self) -> str:
        return f"{self.prefix}:index:hosts"


class HostRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host as it last reported. `free_bytes` is of the disk of the engine's data, None where that is not known.

    machine     the operating system's host name, as its engine says it
    tar_url     its tar server, as ranges reach it
    images      on its engine, of `images_bytes` together as the engine counts them
    error       why its engine did not answer
    """

    host: str
    machine: str
    since: datetime
    seen_at: datetime
    engine_id: str = ""
    engine_version: str = ""
    store: Literal["classic", "containerd"] | None = None
    platform: str = ""
    free_bytes: int | None = None
    images: int = 0
    images_bytes: int = 0
    tar_url: str = ""
    error: str = ""

    def facts(self) -> HostRecord:
        """The record without what changes all the time."""
        return msgspec.structs.replace(self, seen_at=self.since, free_bytes=None)

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def read(cls, beat: bytes | None) -> HostRecord | None:
        """The record in a heartbeat; None where there is none that can be read."""
        try:
            return None if beat is None else msgspec.json.decode(beat, type=cls)
        except MALFORMED:
            return None


def host_id_of(engine_id: str) -> str:
    """An engine's id as a host id: the colons of older engines' ids become dashes. Raises ValueError."""
    host = engine_id.strip().replace(":", "-")
    if not HOST_ID.fullmatch(host):
        raise ValueError(f"the engine's id {engine_id[:140]!r} cannot be a host's: set CYROID_HOST_ID")
    return host
