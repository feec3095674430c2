"""Health check of one container: whether its operations listener answers, which Compose reads off the exit status.

    python -m deploy.container.health URL            0 when it answers 2xx; otherwise 1 and a line that says why
    python -m deploy.container.health unix:SOCKET    the same for the engine behind a socket

Standard library only: it runs every few seconds in every container.
"""

from __future__ import annotations

import http.client
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

#: Longer than a process takes to ask its dependencies (`services.runtime.readiness`), shorter than Compose waits.
TIMEOUT_SECONDS = 5.0
_DETAIL_BYTES = 2000


def problem_at(url: str) -> str | None:
    """Why `url` is not healthy, with the body of its answer; None if it is."""
    if url.startswith("unix:"):
        return _problem_behind(url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as refused:
        return f"{url} answered {refused.code}: {refused.read(_DETAIL_BYTES).decode(errors='replace').strip()}"
    except (OSError, ValueError, http.client.HTTPException) as problem:
        return f"{url}: {problem}"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def _problem_behind(url: str) -> str | None:
    connection = _UnixConnection(url.removeprefix("unix:"))
    try:
        connection.request("GET", "/_ping")
        answer = connection.getresponse()
        said = answer.read(_DETAIL_BYTES).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as problem:
        return f"{url}: {problem}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{url} answered {answer.status}: {said}"


def main(arguments: Sequence[str]) -> int:
    """The command line: exit status 0 if the URL is healthy."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m deploy.container.health URL\n")
        return 2
    problem = problem_at(arguments[0])
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
    return 0 if problem is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
