"""Tar-splits of layers, made by `services.adapters.tar_splitter`: those that wait together share one start of it.

A start costs more than the tar-split of a small layer, and an image may have a hundred of them.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

from services.adapters.limited_programs import program
from services.errors import LayersNotMounted

#: Of one start: descriptors are few there, and all its layers share its time.
_LAYERS_LIMIT = 24
_BYTES_LIMIT = 256 << 20
Run = Callable[[list[str], Sequence[int]], Awaitable[tuple[int, str]]]
"""Runs a command that keeps these descriptors, within limits; its exit status and output. Raises LayersNotMounted."""


@dataclass(eq=False)
class _Job:
    source: IO[bytes]
    target: IO[bytes]
    size_bytes: int
    answer: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class TarSplitBatches:
    """`run` starts the program; `parallel` is held meanwhile."""

    def __init__(self, run: Run, parallel: asyncio.Semaphore) -> None:
        self._run = run
        self._parallel = parallel
        self._waiting: deque[_Job] = deque()

    async def split(self, source: IO[bytes], target: IO[bytes]) -> int:
        """Write the tar-split of `source`; how many bytes its files hold. Raises LayersNotMounted."""
        job = _Job(source, target, os.fstat(source.fileno()).st_size)
        self._waiting.append(job)
        try:
            while not job.answer.done():
                async with self._parallel:
                    if job in self._waiting:
                        await self._make(self._taken())
                        continue
                await asyncio.wait([job.answer])  # another one's start has it
            return job.answer.result()
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    def _taken(self) -> list[_Job]:
        """The first that wait, as many as one start may have."""
        jobs, size = [self._waiting.popleft()], 0
        size += jobs[0].size_bytes
        while self._waiting and len(jobs) < _LAYERS_LIMIT and size + self._waiting[0].size_bytes <= _BYTES_LIMIT:
            jobs.append(self._waiting.popleft())
            size += jobs[-1].size_bytes
        return jobs

    async def _make(self, jobs: Sequence[_Job]) -> None:
        pairs = [(job.source.fileno(), job.target.fileno()) for job in jobs]
        command = program("services.adapters.tar_splitter")
        try:
            status, said = await self._run(
                [*command, *(f"{tar}:{target}" for tar, target in pairs)], [one for pair in pairs for one in pair]
            )
            answers = said.splitlines()
        except LayersNotMounted as problem:
            status, answers = 1, [f"error {problem}"] * len(jobs)
        for place, job in enumerate(jobs):
            answer = answers[place] if place < len(answers) else f"error the program ended (status {status})"
            if not job.answer.done():
                _settle(job.answer, answer)


def _settle(future: asyncio.Future[int], answer: str) -> None:
    word, _, rest = answer.partition(" ")
    if word == "size" and rest.isascii() and rest.isdigit():
        future.set_result(int(rest))
    else:
        future.set_exception(LayersNotMounted(rest[:300] if word == "error" else f"unreadable answer {answer[:80]!r}"))
