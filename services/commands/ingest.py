"""Commands to make images on the host's engine: build, import and promote, as the HTTP API hands them on.

Whoever carries them out is composed by `bootstrap`: services/ingest/jobs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from events.messages import Push
from services.core.builds.options import BuildOptions
from services.core.images.ingests import IngestKind, IngestRecord
from services.errors import Unavailable
from services.ports import Chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildCommand:
    """Build the uploaded context, a tar, as `reference`."""

    reference: str
    options: BuildOptions = field(default_factory=BuildOptions)
    push: Push = "auto"
    kind: IngestKind = "build"
    origin: str = "upload"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveCommand:
    """Import the upload: an image archive, or a blueprint zip. `reference`: the name of an archive's one image."""

    reference: str = ""
    origin: str = "upload"
    push: Push = "auto"
    kind: IngestKind = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullCommand:
    """Have the host's engine pull `reference`."""

    reference: str
    push: Push = "auto"
    kind: IngestKind = "import"

    @property
    def origin(self) -> str:
        return self.reference


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteCommand:
    """Make `reference` of a container's changes, or of the image `origin`."""

    reference: str
    origin: str
    is_image: bool
    changes: Sequence[str] = ()
    push: Push = "auto"
    kind: IngestKind = "promote"


IngestCommand = BuildCommand | ArchiveCommand | PullCommand | PromoteCommand


class IngestJobs(Protocol):
    """Carries out such commands, and keeps a record of each."""

    async def run(self) -> None:
        """Until cancelled; jobs that are under way then are interrupted."""

    async def start(
        self,
        command: IngestCommand,
        *,
        content: Chunks | None = None,
        total_bytes: int = 0,
        actor: str = "",
        ingest_id: str | None = None,
    ) -> IngestRecord:
        """Begin; returns its record when the whole of `content` was taken, or when it has ended.

        With an `ingest_id` that is known already, nothing is begun and its record is returned, unless it failed.
        Raises what the job raises while it is waited for, Unavailable where too many are under way, BusError.
        """


class NoIngest:
    """For an API without an engine that it may build on."""

    async def run(self) -> None:
        return None

    async def start(
        self,
        command: IngestCommand,
        *,
        content: Chunks | None = None,
        total_bytes: int = 0,
        actor: str = "",
        ingest_id: str | None = None,
    ) -> IngestRecord:
        raise Unavailable("this API builds, imports and promotes nothing")
