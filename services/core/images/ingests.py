"""Ingest records: builds, imports and promotes that were requested over HTTP; who asked, how far each is, how it ended.

    {prefix}:ingest:<id>             IngestRecord, kept for 30 days
    {prefix}:index:ingests           ids by the time they were asked for
    {prefix}:index:ingest-changes    ids by the time of their last change

The API process that does the work writes it, once a second while something changes and every few seconds otherwise: an
open record that is older than `LOST_SECONDS` belongs to a process that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from events.bus import IndexWrite, Outcome
from events.messages import Failure, ImageAppeared, Push
from events.records import ANY, Key, Stored

IngestKind = Literal["build", "import", "promote"]
IngestState = Literal["receiving", "working", "done", "failed"]
KEPT_SECONDS = 30 * 86400.0
LOST_SECONDS = 30.0
#: So many of the latest lines of a log are kept, each cut to so many characters.
LOG_LINES, LINE_CHARACTERS = 40, 400
INTERRUPTED = Failure(
    code="interrupted", message="the API's process ended before this did: request it again", retryable=True
)


class IngestedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the host's engine has now, and whose event was published."""

    reference: str
    image_id: str
    size_bytes: int


class IngestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One build, import or promote.

    reference       the name that was asked for; "" where the archive names its images
    origin          the archive, the pulled reference, the container or the image that it is made of
    received_bytes  of the upload, of which `total_bytes` were announced (0: not known)
    note            what is being done now, as the engine tells it
    """

    id: str
    kind: IngestKind
    started_at: datetime
    changed_at: datetime
    state: IngestState = "receiving"
    reference: str = ""
    origin: str = ""
    push: Push = "auto"
    actor: str = ""
    received_bytes: int = 0
    total_bytes: int = 0
    note: str = ""
    log: tuple[str, ...] = ()
    images: tuple[IngestedImage, ...] = ()
    error: Failure | None = None
    ended_at: datetime | None = None

    def is_lost(self, now: datetime) -> bool:
        """Whether the process that did it is gone."""
        return self.ended_at is None and (now - self.changed_at).total_seconds() > LOST_SECONDS


@dataclass(frozen=True, slots=True)
class IngestKeys:
    """Names under a key prefix."""

    prefix: str

    def record(self, ingest_id: str) -> Key[IngestRecord]:
        return Key(f"{self.prefix}:ingest:{ingest_id}", IngestRecord)

    @property
    def all(self) -> str:
        return f"{self.prefix}:index:ingests"

    @property
    def changes(self) -> str:
        return f"{self.prefix}:index:ingest-changes"


def with_line(record: IngestRecord, line: str) -> IngestRecord:
    """The record after a line of the engine's log."""
    cut = line[:LINE_CHARACTERS]
    return msgspec.structs.replace(record, note=cut, log=(*record.log[-(LOG_LINES - 1) :], cut))


def with_image(record: IngestRecord, image: ImageAppeared) -> IngestRecord:
    """The record after an image's event was published."""
    found = IngestedImage(reference=image.reference, image_id=image.image_id, size_bytes=image.size_bytes)
    return msgspec.structs.replace(record, images=(*record.images, found))


def ended(record: IngestRecord, error: Failure | None, now: datetime) -> IngestRecord:
    """The record at its end."""
    state: IngestState = "done" if error is None else "failed"
    return msgspec.structs.replace(record, state=state, error=error, note="", changed_at=now, ended_at=now)


def lost(record: IngestRecord) -> IngestRecord:
    """The record as it is shown where its process is gone."""
    return ended(record, INTERRUPTED, record.changed_at)


def written(keys: IngestKeys, record: IngestRecord, expected: Stored[IngestRecord] | None = None) -> Outcome:
    """The writes of a record and its indexes; `expected` None: its only writer writes it."""
    write = keys.record(record.id).write(record, expected=expected or ANY, expires_seconds=KEPT_SECONDS)
    return Outcome(
        records=(write,),
        index=(
            IndexWrite(keys.all, record.id, record.started_at.timestamp()),
            IndexWrite(keys.changes, record.id, record.changed_at.timestamp()),
        ),
    )
