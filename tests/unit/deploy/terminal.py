"""A terminal for tests: what is written to it can be read as a person would have seen it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

_OBEYED = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`stream` is its one end, `shown()` everything that came out at the other, without colours and movements."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.raw = bytearray()

    def shown(self) -> str:
        return _OBEYED.sub("", self.raw.decode(errors="replace"))


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[Terminal]:
    """`sys.stdout` or `sys.stderr` (`name`) is a terminal of 140 columns inside; all of it can be read afterwards."""
    outer, inner = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with open(inner, "w", buffering=1) as stream:
        made = Terminal(stream)
        reading = threading.Thread(target=_read, args=(outer, made.raw))
        reading.start()
        with monkeypatch.context() as patch:
            patch.setattr(f"sys.{name}", stream)
            yield made
    reading.join(10)
    os.close(outer)


def _read(descriptor: int, into: bytearray) -> None:
    while True:
        try:
            said = os.read(descriptor, 65536)
        except OSError:  # the other end was closed
            return
        if not said:
            return
        into += said
