"""Ingest jobs: builds, imports and promotes that were requested over HTTP, each with a record of its progress.

Consumes no stream. A job runs in the API's process; what is uploaded goes to the host's engine while it is received, so
that its size costs no memory. The record is written once a second while something changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import msgspec

from events.bus import BusClient, BusError, RecordConflict
from events.envelope import new_id
from events.messages import ImageAppeared
from events.task_group import TaskGroup
from services.commands.ingest import IngestCommand
from services.core.closing import closing
from services.core.images.ingests import INTERRUPTED, IngestKeys, IngestRecord, ended, with_image, with_line, written
from services.errors import CyroidError, RequestRefused, Unavailable, of_bus
from services.ingest.work import IngestWork
from services.ports import Chunks, EngineProgress
from services.runtime.telemetry import get_logger

log = get_logger(role="ingest")
#: So many are under way at a time in one process.
AT_ONCE = 4
#: How long a request waits for the end once its content was taken, so that what fails at once is answered at once.
PATIENCE_SECONDS = 2.0
#: No job takes longer.
LIMIT_SECONDS = 6 * 3600.0
WRITE_SECONDS = 1.0
#: An unchanged record is written again after so many turns, as a sign of life.
_ALIVE_TURNS = 8
_GOODBYE_SECONDS = 2.0


class Job:
    """One job: its record as it is now, and what its starter waits for."""

    def __init__(self, record: IngestRecord) -> None:
        self.record = record
        self.received = asyncio.Event()
        self.error: CyroidError | None = None

    def line(self, text: str) -> None:
        """Take over a line of the engine's log."""
        self.record = with_line(self.record, text)

    def progress(self, progress: EngineProgress) -> None:
        """Take over what the engine is doing."""
        note = f"{progress.layer}: {progress.status}" if progress.layer else progress.status
        self.record = msgspec.structs.replace(self.record, note=note[:200])

    def image(self, image: ImageAppeared) -> None:
        """Take over an image whose event was published."""
        self.record = with_image(self.record, image)

    async def counted(self, content: Chunks) -> AsyncIterator[bytes]:
        """The content, counted."""
        async with closing(content):
            async for chunk in content:
                received = self.record.received_bytes + len(chunk)
                self.record = msgspec.structs.replace(self.record, received_bytes=received)
                yield chunk
        self.take()

    def take(self) -> None:
        """Nothing more is received."""
        self.record = msgspec.structs.replace(self.record, state="working")
        self.received.set()


class EngineIngestJobs:
    """Carries out ingest commands on the host's engine (services.commands.ingest.IngestJobs)."""

    def __init__(
        self,
        *,
        bus: BusClient,
        prefix: str,
        work: IngestWork,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus, self._keys, self._work, self._clock = bus, IngestKeys(prefix), work, clock
        self._group: TaskGroup | None = None
        self._jobs: set[Job] = set()

    async def run(self) -> None:
        """Until cancelled; jobs that are under way then are interrupted."""
        async with TaskGroup() as group:
            self._group = group
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    async def start(
        self,
        command: IngestCommand,
        *,
        content: Chunks | None = None,
        total_bytes: int = 0,
        actor: str = "",
        ingest_id: str | None = None,
    ) -> IngestRecord:
        """Begin (services.commands.ingest.IngestJobs)."""
        ident = ingest_id or new_id()
        stored = await self._keys.record(ident).load(self._bus)
        now, known = self._clock(), stored.value
        if known is not None and known.state != "failed" and not known.is_lost(now):
            return known
        if self._group is None or len(self._jobs) >= AT_ONCE:
            raise Unavailable(f"{AT_ONCE} builds and imports are under way: wait until one ends", code="ingests_busy")
        job = Job(
            IngestRecord(
                id=ident,
                kind=command.kind,
                started_at=now,
                changed_at=now,
                reference=command.reference,
                origin=command.origin[:200],
                push=command.push,
                actor=actor,
                total_bytes=total_bytes,
            )
        )
        self._jobs.add(job)
        try:
            await self._bus.commit(written(self._keys, job.record, stored))
            task = self._group.create_task(self._carry_out(job, command, content))
        except RecordConflict:
            self._jobs.discard(job)
            return (await self._keys.record(ident).load(self._bus)).value or job.record
        except BaseException:
            self._jobs.discard(job)
            raise
        await _until_taken(job, task)
        if job.error is not None:
            raise job.error
        return job.record

    async def _carry_out(self, job: Job, command: IngestCommand, content: Chunks | None) -> None:
        """Do it, and write its end whatever happens."""
        assert self._group is not None
        writing = self._group.create_task(self._write_often(job))
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                if content is None:
                    job.take()
                await self._work.do(command, None if content is None else job.counted(content), job)
        except CyroidError as problem:
            job.error = problem
        except BusError as problem:
            job.error = of_bus(problem)
        except TimeoutError:
            job.error = RequestRefused(f"it did not end within {LIMIT_SECONDS / 3600:g} hours", code="timeout")
        except asyncio.CancelledError:
            job.error = Unavailable(INTERRUPTED.message, code=INTERRUPTED.code)
            raise
        except Exception as problem:
            log.error("an ingest job failed", ingest=job.record.id, exc_info=problem)
            job.error = CyroidError("the job failed for a reason that was not foreseen; the API's log has it")
        finally:
            writing.cancel()
            self._jobs.discard(job)
            job.record = ended(job.record, None if job.error is None else job.error.failure(), self._clock())
            await self._write(job)

    async def _write_often(self, job: Job) -> None:
        before, turns = job.record, 0
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            turns += 1
            if job.record is before and turns < _ALIVE_TURNS:
                continue
            job.record = msgspec.structs.replace(job.record, changed_at=self._clock())
            before, turns = job.record, 0
            await self._write(job)

    async def _write(self, job: Job) -> None:
        """Write the record as it is now. Without Redis the next one tells more."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._bus.commit(written(self._keys, job.record))
        except (BusError, TimeoutError) as problem:
            log.warning("an ingest record cannot be written", ingest=job.record.id, why=str(problem))


async def _until_taken(job: Job, task: asyncio.Task[None]) -> None:
    """Wait until the content was taken and a moment longer, or until the job has ended."""
    taken = asyncio.ensure_future(job.received.wait())
    try:
        await asyncio.wait({taken, task}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
    finally:
        taken.cancel()
