"""Prelude of the attacker's programs in a range: the gateway's protocol by hand, with the agent's own secret."""

import json
import os
import socket
import struct
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

ME = os.environ["CYROID_RANGE_ID"]
URL = Path("/run/cyroid/redis_url").read_text().strip()
SECRET = URL.rsplit(":", 2)[1].split("@")[0]
GATEWAY = ("cyroid-gateway", 7071)
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


class Gateway:
    """One connection; `ask` waits for the answer, `send` does not."""

    def __init__(self, range_id: str = ME, secret: str = SECRET, hello: bool = True) -> None:
        self.socket = socket.create_connection(GATEWAY, timeout=30)
        self.number = 0
        self.welcome: dict[str, Any] = {}
        if hello:
            self.send_raw(pack({"ask": "hello", "range_id": range_id, "secret": secret}))
            self.welcome = self.read()

    def send_raw(self, payload: bytes) -> None:
        self.socket.sendall(struct.pack(">I", len(payload)) + payload)

    def read(self) -> dict[str, Any]:
        while True:
            head = self._exactly(4)
            answer: dict[str, Any] = unpack(self._exactly(struct.unpack(">I", head)[0]))
            if answer.get("kind") != "inbox_changed":
                return answer

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(min(65536, count - len(data)))
            if not part:
                raise ConnectionError("the gateway ended the connection")
            data += part
        return data

    def send(self, request: object) -> None:
        self.number += 1
        self.send_raw(pack([self.number, request]))

    def ask(self, request: object) -> dict[str, Any]:
        self.send(request)
        return self.read()


def entry(kind: str, data: object, **more: str) -> dict[bytes, bytes]:
    fields = {
        "id": str(uuid.uuid4()),
        "type": kind,
        "source": "agent@" + ME,
        "subject": ME,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": json.dumps(data),
        **more,
    }
    return {name.encode(): value.encode() for name, value in fields.items()}


def commit(kind: str, data: object, to: str = "outbox", **more: str) -> dict[str, Any]:
    return {"ask": "commit", "messages": [[to, entry(kind, data, **more)]]}


def say(kind: str, data: object, to: str = "outbox", **more: str) -> str:
    """Publish one message; how the gateway answered: `ok`, or the error's code."""
    return answered(lambda gateway: gateway.ask(commit(kind, data, to, **more)))


def answered(step: Callable[[Gateway], dict[str, Any]]) -> str:
    try:
        gateway = Gateway()
        if gateway.welcome.get("error"):
            return str(gateway.welcome["error"])
        return str(step(gateway).get("error") or "ok")
    except OSError as ended:
        return "ended: " + type(ended).__name__


def http(
    url: str, method: str = "GET", data: bytes | None = None, headers: dict[str, str] | None = None, timeout: float = 15
) -> tuple[int, bytes]:
    """The status and the beginning of the answer."""
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read(20000)
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read(2000)
    except OSError as failed:
        return 0, str(failed).encode()


def connects(host: str, port: int, timeout: float = 4) -> bool:
    """Whether somebody answered: the other end is still there once the connection was made."""
    try:
        with socket.create_connection((host, port), timeout=timeout) as one:
            one.getpeername()
    except OSError:
        return False
    return True


def hold(host: str, port: int, count: int, data: bytes = b"") -> list[socket.socket]:
    """So many connections that send `data` and no more; how many were there at once."""
    held = []
    for _ in range(count):
        try:
            one = socket.create_connection((host, port), timeout=2)
            one.sendall(data)
            held.append(one)
        except OSError:
            continue
    return held
