"""Admission of connections: authentication within a few seconds, and a bounded number per range.

Connections that have not said who they are are counted by the network that they come from (each range has its own, so
a range can take up only its own places), and all of them together stay well below what the process may open.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.range_gateway.session import Session

HELLO_SECONDS = 5.0
HELLO_BYTES = 1024
#: From one address through one network, before their Hello.
UNKNOWN_LIMIT = 8
#: Of one range. An agent has one; the former one of an agent that lost its way may still stand.
RANGE_LIMIT = 4
#: Descriptors left for Redis, logs and the like.
_SPARE_DESCRIPTORS = 64


class Admission:
    """Counts open connections, of each range and of unauthenticated clients."""

    def __init__(self, *, total: int | None = None) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._total = total if total is not None else max(16, min(4096, soft - _SPARE_DESCRIPTORS))
        self._all = 0
        self._unknown: Counter[str] = Counter()
        self._sessions: defaultdict[str, list[Session]] = defaultdict(list)

    @contextmanager
    def unknown(self, network: str) -> Iterator[bool]:
        """Admit an unauthenticated connection; False: there is no place for it."""
        if self._all >= self._total or self._unknown[network] >= UNKNOWN_LIMIT:
            yield False
            return
        self._all += 1
        self._unknown[network] += 1
        try:
            yield True
        finally:
            self._all -= 1
            self._unknown[network] -= 1
            if not self._unknown[network]:
                del self._unknown[network]

    @contextmanager
    def known(self, range_id: str, session: Session) -> Iterator[None]:
        """Admit a session of a range; when there are too many, the range's oldest one ends."""
        self._all += 1
        sessions = self._sessions[range_id]
        sessions.append(session)
        if len(sessions) > RANGE_LIMIT:
            sessions.pop(0).end()
        try:
            yield
        finally:
            self._all -= 1
            if session in sessions:
                sessions.remove(session)
            if not sessions:
                self._sessions.pop(range_id, None)

    def end(self, range_id: str) -> None:
        """End all sessions of a range."""
        for session in list(self._sessions.get(range_id, ())):
            session.end()


def network_of(writer: asyncio.StreamWriter) -> str:
    """The network that a connection came through: this process's own address on it, and for a shared one the peer's."""
    own, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    return f"{own[0] if own else '?'} {peer[0] if peer else '?'}"
