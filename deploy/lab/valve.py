"""TCP relay on loopback that can be cut in the middle of an answer, for faults that have to hit a moment.

with Valve(registry.port) as valve:
    valve.shut_after(1_000_000)        # answers stop flowing after so many more bytes
    …begin something that fetches…
    valve.wait_shut()                  # now it stands still, half done
    registry.kill(); valve.cut()       # or: valve.open()

With `slow_after` it does not stand still then but trickles, as a slow line does: who hangs up is seen at once.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from types import TracebackType
from typing import Self

from deploy.machine.commands import MachineError

CHUNK_BYTES = 64 * 1024
TRICKLE_BYTES = 16 * 1024
#: A connection that was slowed down and has asked for nothing since for so long is idle: what it carried has ended.
IDLE_SECONDS = 0.5


class Valve:
    """Relays connections to a loopback port. `address` is what clients are told instead.

    What is measured and held back are the answers; with `uploads`, what clients send instead.
    """

    def __init__(self, port: int, *, uploads: bool = False) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._state = threading.Condition()
        self._uploads = uploads
        self._left: int | None = None  # bytes that may still pass at once, None: any number
        self._pace: float | None = None  # bytes a second after those, of each connection; None: none
        self._passed = 0
        self._held: dict[socket.socket, float] = {}
        self._over = False
        self._connections: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, name="valve", daemon=True)

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._state:
            self._over = True
            self._left = None
            self._state.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.cut()

    def shut_after(self, count: int) -> None:
        """Let `count` more bytes through, over all connections, then nothing."""
        with self._state:
            self._left, self._pace = count, None

    def slow_after(self, count: int, bytes_per_second: float) -> None:
        """Let `count` more bytes through, over all connections, then so many a second on each."""
        with self._state:
            self._left, self._pace = count, bytes_per_second

    def open(self) -> None:
        """Let everything through again; what was held back goes on."""
        with self._state:
            self._left = None
            self._state.notify_all()

    @property
    def is_shut(self) -> bool:
        """Whether the bytes that were let through have passed: nothing does now, or it trickles."""
        return self._left == 0

    @property
    def passed_bytes(self) -> int:
        """What was let through so far, of what is measured."""
        return self._passed

    @property
    def held(self) -> int:
        """How many connections carry something that is held back or slowed down."""
        with self._state:
            return sum(until > time.monotonic() for until in self._held.values())

    def wait_shut(self, seconds: float = 30) -> None:
        """Wait until the bytes have passed. Raises MachineError when they do not."""
        with self._state:
            if not self._state.wait_for(lambda: self._left == 0, seconds):
                raise MachineError(
                    f"within {seconds:.0f} s only part of the bytes came; {self._left} were still allowed"
                )

    def cut(self) -> None:
        """End all connections as they are, in the middle of whatever they carry."""
        with self._state:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._state.notify_all()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()  # as a port where nobody listens: the connection ends at once
                continue
            server.settimeout(None)
            threading.Thread(target=self._serve, args=(client, server), name="valve", daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """One connection, both ways, to its end."""
        with client, server:
            with self._state:
                self._connections |= {client, server}
            ways = (client, server, self._uploads)
            asking = threading.Thread(target=self._relay, args=ways, name="valve", daemon=True)
            asking.start()
            self._relay(server, client, not self._uploads)
            asking.join()
            with self._state:
                self._connections -= {client, server}
                for ended in (client, server):
                    self._held.pop(ended, None)

    def _relay(self, source: socket.socket, sink: socket.socket, measured: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                while chunk:
                    allowed = self._allowed(len(chunk), source) if measured else len(chunk)
                    sink.sendall(chunk[:allowed])
                    chunk = chunk[allowed:]
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _allowed(self, wanted: int, source: socket.socket) -> int:
        """How many bytes of what comes from `source` may pass now; waits while it is none."""
        with self._state:
            if self._left == 0:
                self._held[source] = math.inf
                if self._pace is not None:
                    wanted = min(wanted, TRICKLE_BYTES)
                self._state.wait_for(lambda: self._left != 0, wanted / self._pace if self._pace else None)
                self._held[source] = time.monotonic() + IDLE_SECONDS
            if self._left:
                wanted = min(wanted, self._left)
                self._left -= wanted
                self._state.notify_all()
            self._passed += wanted
            return wanted
