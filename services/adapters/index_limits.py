"""Layers that a program cannot get through: remembered, so that they cost the host that much only once.

Each deployment of such an image would otherwise keep the program busy up to its limit, and other images waiting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from services.errors import LayersNotMounted

#: A busy machine may be the reason, so it is tried again after this.
AGAIN_SECONDS = 3600.0
_REMEMBERED = 1000


class ContentRefused(LayersNotMounted):
    """The content is the reason: another try would end the same way."""


class LimitReached(ContentRefused):
    """A program reached a limit of time, memory or output."""


class BeyondLimits:
    """Remembers, for some time, of which files a program could not make `what`. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, what: str = "index") -> None:
        self._clock = clock
        self._what = what
        self._found: dict[str, tuple[tuple[int, int, int], float, str]] = {}

    @contextmanager
    def noted(self, name: str, source: IO[bytes]) -> Iterator[None]:
        """Run the program on `source` inside. Raises LayersNotMounted, at once if it was refused a while ago."""
        status = os.fstat(source.fileno())
        content = (status.st_ino, status.st_size, status.st_mtime_ns)
        known, until, why = self._found.get(name, (None, 0.0, ""))
        if known == content and self._clock() < until:
            raise LayersNotMounted(f"no {self._what} of {source.name} can be made: {why}, as an earlier try showed")
        try:
            yield
        except ContentRefused as reached:
            self._found.pop(name, None)
            self._found[name] = (content, self._clock() + AGAIN_SECONDS, str(reached))
            while len(self._found) > _REMEMBERED:
                self._found.pop(next(iter(self._found)))
            raise LayersNotMounted(f"no {self._what} of {source.name} can be made: {reached}") from reached
