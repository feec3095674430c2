"""The init's part in mounted layers: at the agent's word, layers become known to an engine on the classic store.

The agent sends one JSON object over the control socket and gets one back:

    {"mode": "idle" | "always", "layers": [{"name", "diff_id", "chain_id", "parent"?}, …]}
    {"placed": true} | {"placed": false, "busy": bool, "why": "…"}

`idle` wants an engine to which nobody else is connected; `always` wants no pull, load or build under way. The engine is
stopped, the records are written, and it is started again; containers run on (`live-restore`). Standard library only.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import classic_layers
import engine_use
import seeds

REQUEST_LIMIT_BYTES = 1 << 20
REQUEST_SECONDS = 2.0
#: A layer-mounter that is gone for good must not keep the engine down: containers on its layers are refused then.
MOUNTS_SECONDS = 30.0


class Process(Protocol):
    """The engine as the init sees it."""

    pid: int


class LayerPlacer:
    """`shown` is what the host shows, `root` the engine's data, `sockets` where clients reach the engine. `seeding` is
    waited for before the engine starts.
    """

    def __init__(
        self, *, shown: Path, root: Path, control: Path, sockets: Sequence[str], seeding: seeds.Seeding | None = None
    ) -> None:
        self.control = control
        self._shown = shown
        self._root = root
        self._sockets = sockets
        self._seeding = seeding
        self._waits_since: float | None = None
        self._just_placed = False
        control.parent.mkdir(parents=True, exist_ok=True)
        control.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(control))
        control.chmod(0o600)
        self.listener.listen(4)
        self.listener.setblocking(False)

    def may_start(self, now: float) -> bool:
        """Whether the engine may start: it has what it starts with, and everything that its layers stand on is mounted,
        or that was waited for.
        """
        if self._seeding is not None and not self._seeding.is_over(now):
            return False
        if classic_layers.missing(self._root):
            self._waits_since = now if self._waits_since is None else self._waits_since
            if now - self._waits_since < MOUNTS_SECONDS:
                return False
        self._waits_since = None
        if not self._just_placed:  # of what was, no image knows yet
            with suppress(OSError):  # what is left over does no harm
                classic_layers.sweep(self._root, self._shown)
        self._just_placed = False
        return True

    def serve(self, engine: Process, restart: Callable[[Callable[[], None]], None]) -> None:
        """Answer one request, if there is one."""
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return
        with connection:
            connection.settimeout(REQUEST_SECONDS)
            try:
                answer = self._answer(_request(connection), engine, restart)
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                return  # who asked is gone

    def _answer(self, text: bytes, engine: Process, restart: Callable[[Callable[[], None]], None]) -> dict[str, object]:
        try:
            request = json.loads(text)
            mode, layers = str(request["mode"]), [{str(k): str(v) for k, v in one.items()} for one in request["layers"]]
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return _refused(f"the request cannot be read: {problem}")
        why = self._in_use(engine, mode)
        if why:
            return {**_refused(why), "busy": True}
        problems: list[str] = []

        def between() -> None:
            try:
                classic_layers.sweep(self._root, self._shown)
                classic_layers.place(self._root, self._shown, layers)
                self._just_placed = True
            except (OSError, ValueError, KeyError) as problem:
                problems.append(str(problem))

        restart(between)
        return _refused(problems[0]) if problems else {"placed": True}

    def _in_use(self, engine: Process, mode: str) -> str:
        if not engine.pid:
            return "the engine does not run"
        under_way = engine_use.work(self._root)
        if under_way:
            return f"the engine has a pull, load or build under way ({under_way[0]})"
        clients = engine_use.clients(self._sockets, engine.pid) if mode != "always" else 0
        return f"{clients} clients are connected to the engine" if clients else ""


def _request(connection: socket.socket) -> bytes:
    """The line that was sent. Raises OSError."""
    text, deadline = b"", time.monotonic() + REQUEST_SECONDS
    while not text.endswith(b"\n") and len(text) < REQUEST_LIMIT_BYTES and time.monotonic() < deadline:
        block = connection.recv(1 << 16)
        if not block:
            break
        text += block
    return text


def _refused(why: str) -> dict[str, object]:
    return {"placed": False, "busy": False, "why": why}
