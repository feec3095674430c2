"""Whether one container of the stack is well: its exit status is what Compose looks at.

python -m deploy.stack.health worker         its connections have asked Redis for something lately
python -m deploy.stack.health port NUMBER    something listens there
python -m deploy.stack.health url URL        it answers 2xx
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import redis

TIMEOUT_SECONDS = 5.0
#: A worker that waits for entries reads again every few seconds; one that is silent for longer hangs.
SILENCE_SECONDS = 60
#: What the bus calls its connections (`RedisBus.open`).
BUS = "cyroid-images"


class Unwell(Exception):
    """One line: what is wrong."""


def check_worker(environment: Mapping[str, str]) -> None:
    """A worker asks Redis for entries all the time: one of its connections has been used within the last minute.

    Its connections are those that come from this container's address and bear the bus's name.
    """
    file = environment.get("CYROID_REDIS_URL_FILE")
    url = Path(file).read_text().strip() if file else environment["CYROID_REDIS_URL"]
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    with redis.Redis.from_url(url, client_name="health", **options) as client:
        own = client.client_id()
        clients = cast("list[dict[str, str]]", client.client_list())
    here = next(_host(one) for one in clients if int(one["id"]) == own)
    silent = [int(one["idle"]) for one in clients if _host(one) == here and one["name"].startswith(BUS)]
    if not silent or min(silent) > SILENCE_SECONDS:
        raise Unwell(f"nothing was asked of Redis for {min(silent)} s" if silent else "no connection to Redis")


def _host(client: Mapping[str, str]) -> str:
    return client["addr"].rpartition(":")[0]


def check_port(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS):
        pass


def check_url(url: str) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS):
        pass


def main(arguments: Sequence[str]) -> int:
    try:
        match list(arguments):
            case ["worker"]:
                check_worker(os.environ)
            case ["port", number]:
                check_port(int(number))
            case ["url", url]:
                check_url(url)
            case _:
                raise Unwell(f"what is {' '.join(arguments)!r}?")
    except (Unwell, OSError, urllib.error.URLError, redis.RedisError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
