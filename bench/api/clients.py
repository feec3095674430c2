"""Clients of the API that cost little themselves: requests on a kept connection, and readers of live events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter


class ListClient:
    """Asks for lists, one after the other, on one connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.seconds: list[float] = []
        self.problems = 0

    async def run(self, paths: Sequence[str], until: float) -> None:
        """Ask in turn until that moment (`perf_counter`)."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        requests = [
            f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept-Encoding: gzip\r\n\r\n".encode() for path in paths
        ]
        number = 0
        try:
            while perf_counter() < until:
                began = perf_counter()
                writer.write(requests[number % len(requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                self.seconds.append(perf_counter() - began)
                self.problems += not head.startswith(b"HTTP/1.1 200 ")
                number += 1
        finally:
            writer.close()


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.index(b"content-length: ") + 16
    return int(lowered[at : lowered.index(b"\r\n", at)])


class EventClient:
    """Reads live events: how many updates of transfers came; `complete` once `ends` transfers were told to be over."""

    def __init__(self, host: str, port: int, *, ends: int) -> None:
        self._host, self._port, self._ends = host, port, ends
        self.updates = 0
        self.ended = 0
        self.resets = 0
        self.ready = asyncio.Event()
        self.complete = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        kept = b""
        try:
            while True:
                chunk = await reader.read(1 << 18)
                if not chunk:
                    return
                text = kept + chunk
                cut = text.rfind(b"\n") + 1
                whole, kept = text[:cut], text[cut:]
                self.updates += whole.count(b"event: transfer\n")
                self.ended += whole.count(b'"phase":"done"')
                self.resets += whole.count(b"event: reset\n")
                if self.ended >= self._ends:
                    self.complete.set()
                if b"event: snapshot\n" in whole:
                    self.ready.set()
        finally:
            writer.close()
