"""TCP proxy on loopback in front of an engine's socket: the laboratory's engines have sockets, a range's is reached by
TCP.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

_CHUNK_BYTES = 64 * 1024


@contextlib.contextmanager
def tcp_door(path: Path) -> Iterator[str]:
    """The `tcp://` address under which the socket is reached while inside."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(str(path))
                asking = threading.Thread(target=_relay, args=(self.request, engine), daemon=True)
                asking.start()
                _relay(engine, self.request)
                asking.join()

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
