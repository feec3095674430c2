"""Progress lines and build logs of an engine, filtered and decoded."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.adapters.engine_streams import Line, Reply
from services.core.builds.trace import BuildTrace
from services.core.images.pull_progress import PullProgress
from services.errors import BuildFailed
from services.ports import EngineProgress

#: What an engine says of a layer that waits for bytes. Anything else it does itself, and may take long over.
_WAITING = {"Downloading", "Pushing", "Waiting", "Pulling fs layer", "Preparing"}

#: Far above any size; numbers above it are none.
NUMBER_LIMIT = 2**53
#: What BuildKit's progress comes as.
_TRACE = "moby.buildkit.trace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a pull may be silent: while it moves, and while the engine makes it wait for other pulls."""

    moving_seconds: float
    queued_seconds: float


class Progress(AsyncIterator[EngineProgress]):
    """Progress lines that bring something new. With `reply`, lines that only repeat the last ones count as silence.

    An engine on a containerd store says ten times a second how far each layer is, also while nothing comes.
    """

    def __init__(self, lines: AsyncIterator[Line], reply: Reply | None = None, limits: Limits | None = None) -> None:
        self._lines = lines
        self._reply = reply
        self._limits = limits
        self._pull = PullProgress()
        self._last: dict[str | None, EngineProgress] = {}

    async def __anext__(self) -> EngineProgress:
        async for line in self._lines:
            if status := (line.status or line.stream).strip():
                detail = line.detail or {}
                progress = EngineProgress(
                    status=status,
                    layer=line.id,
                    done_bytes=_count(detail.get("current")),
                    total_bytes=_count(detail.get("total")),
                )
                if self._reply is not None and self._limits is not None:
                    self._pull.take(status, line.id, progress.done_bytes, progress.total_bytes)
                    queued = self._pull.queued
                    self._reply.bear(self._limits.queued_seconds if queued else self._limits.moving_seconds)
                if self._reply is not None:
                    self._reply.advanced(status not in _WAITING or self._last.get(line.id) != progress)
                    self._last[line.id] = progress
                return progress
        raise StopAsyncIteration


class BuildLog(AsyncIterator[str]):
    """A build's output as whole lines: the classic builder sends pieces of lines, BuildKit sends what changed."""

    def __init__(self, lines: AsyncIterator[Line]) -> None:
        self._lines = lines
        self._trace = BuildTrace()
        self._rest = ""
        self._ready: deque[str] = deque()
        self._ended = False

    async def __anext__(self) -> str:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._read()
        return self._ready.popleft()

    async def _read(self) -> None:
        async for line in self._lines:
            if line.id == _TRACE:
                self._ready += _traced(self._trace, line.aux)
            elif line.aux is None:
                self._take(line)
            return
        self._ended = True
        self._ready += [*self._trace.rest(), *([self._rest] if self._rest.strip() else [])]

    def _take(self, line: Line) -> None:
        piece = line.stream or (f"{line.id}: {line.status}\n" if line.id and line.status else f"{line.status}\n")
        *whole, self._rest = (self._rest + piece).split("\n")
        self._ready += [text.rstrip("\r") for text in whole if text.strip()]


def _count(told: object) -> int:
    """A number of bytes, as an engine tells it; 0 for anything else."""
    return max(told, 0) if isinstance(told, int) and told < NUMBER_LIMIT else 0


def _traced(trace: BuildTrace, aux: object) -> list[str]:
    """The log lines of one of BuildKit's progress messages. Raises BuildFailed for a message that cannot be decoded."""
    try:
        return trace.lines(base64.b64decode(aux, validate=True)) if isinstance(aux, str) else []
    except ValueError as problem:
        raise BuildFailed(f"the engine's build log is not what BuildKit writes: {problem}") from problem
