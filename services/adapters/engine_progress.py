"""An engine's lines as people read them: progress, and a build's log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.adapters.engine_http import Line, Reply
from services.core.pull_progress import PullProgress
from services.ports import EngineProgress

#: What an engine says of a layer that waits for bytes. Anything else it does itself, and may take long over.
_WAITING = {"Downloading", "Pushing", "Waiting", "Pulling fs layer", "Preparing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a pull may be silent: one that moves, and one that the engine makes wait for its other pulls."""

    moving_seconds: float
    queued_seconds: float


class Progress(AsyncIterator[EngineProgress]):
    """Progress lines that say something. With `reply`, lines that only repeat the last ones count as silence.

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
                    done_bytes=max(int(detail.get("current") or 0), 0),
                    total_bytes=max(int(detail.get("total") or 0), 0),
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
    """A build's output as whole lines: the engine sends pieces of lines as the steps write them."""

    def __init__(self, lines: AsyncIterator[Line]) -> None:
        self._lines = lines
        self._rest = ""
        self._ready: list[str] = []
        self._ended = False

    async def __anext__(self) -> str:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._read()
        return self._ready.pop(0)

    async def _read(self) -> None:
        async for line in self._lines:
            piece = line.stream or (f"{line.id}: {line.status}\n" if line.id and line.status else f"{line.status}\n")
            *whole, self._rest = (self._rest + piece).split("\n")
            self._ready += [text.rstrip("\r") for text in whole if text.strip()]
            return
        self._ended = True
        self._ready += [self._rest] if self._rest.strip() else []
