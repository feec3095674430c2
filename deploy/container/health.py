"""Health check of one container: whether its operations listener answers, which Compose reads off the exit status.

    python -m deploy.container.health URL…           0 when each answers 2xx; otherwise 1 and a line that says why
    python -m deploy.container.health unix:SOCKET    the same for the engine behind a socket

Sockets only: it runs every few seconds in every container, and importing an HTTP client costs more than all the rest.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import closing

#: Longer than a process takes to ask its dependencies (`services.runtime.readiness`), shorter than Compose waits.
TIMEOUT_SECONDS = 5.0
_ANSWER_BYTES = 4000


def problem_at(url: str) -> str | None:
    """Why `url` is not healthy, with the body of its answer; None if it is."""
    try:
        with closing(_connect(url)) as connection:
            path = "/_ping" if url.startswith("unix:") else "/" + url.partition("://")[2].partition("/")[2]
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = _read(connection)
    except (OSError, ValueError) as problem:
        return f"{url}: {problem}"
    head, _, body = answer.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        return f"{url}: no answer in HTTP"
    if rest.startswith(b"2"):
        return None
    return f"{url} answered {rest[:3].decode(errors='replace')}: {body.decode(errors='replace').strip()}"


def _connect(url: str) -> socket.socket:
    """Raises OSError, and ValueError for what is no such URL."""
    if url.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            connection.connect(url.removeprefix("unix:"))
        except BaseException:
            connection.close()
            raise
        return connection
    scheme, _, rest = url.partition("://")
    host, colon, port = rest.partition("/")[0].rpartition(":")
    if scheme != "http" or not colon:
        raise ValueError("expected http://HOST:PORT/PATH or unix:SOCKET")
    return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS)


def _read(connection: socket.socket) -> bytes:
    """The beginning of the answer, to its end or to a limit."""
    answer = b""
    while len(answer) < _ANSWER_BYTES and (piece := connection.recv(_ANSWER_BYTES)):
        answer += piece
    return answer


def main(arguments: Sequence[str]) -> int:
    """The command line: exit status 0 if every URL is healthy."""
    if not arguments:
        sys.stderr.write("usage: python -m deploy.container.health URL…\n")
        return 2
    problems = [problem for url in arguments if (problem := problem_at(url)) is not None]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
