"""Host identity: the id of this host in messages and keys.

`CYROID_HOST_ID` if it is set; else what stands in `host-id` in the data folder; else the id of the host's engine, which
is put there, so that it stays the same when the engine is made anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.core.hosts.hosts import HOST_ID, host_id_of
from services.errors import BadInput
from services.ports import Engine
from services.runtime.telemetry import get_logger

FILE = "host-id"
_log = get_logger(role="host")


class HostIdentity:
    """`chosen` is the setting, `folder` the data folder; both may be empty. `engine` opens the host's engine."""

    def __init__(self, *, chosen: str, folder: str, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._engine = engine
        self._file = Path(folder) / FILE if folder else None
        self._turn = asyncio.Lock()
        self._known = chosen or self._kept()

    @property
    def known(self) -> str | None:
        """The id as far as it is known without asking the engine."""
        return self._known

    async def get(self) -> str:
        """The id. Raises EngineUnavailable as long as nobody knows it, BadInput where the engine's cannot be one."""
        async with self._turn:
            if self._known is None:
                engine = await self._engine()
                try:
                    self._known = host_id_of((await engine.info()).engine_id)
                except ValueError as problem:
                    raise BadInput(str(problem), code="bad_setting") from problem
                self._keep(self._known)
            return self._known

    def _kept(self) -> str | None:
        if self._file is None:
            return None
        try:
            text = self._file.read_text(errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as problem:
            raise BadInput(f"{self._file} cannot be read: {problem.strerror}", code="bad_setting") from problem
        if not HOST_ID.fullmatch(text):
            raise BadInput(f"{self._file} holds no host id: remove it, or set CYROID_HOST_ID", code="bad_setting")
        return text

    def _keep(self, host: str) -> None:
        """The engine is asked again at the next start where it cannot be kept."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new = self._file.with_name(f"{FILE}.{os.getpid()}")
            new.write_text(f"{host}\n")
            new.replace(self._file)
        except OSError as problem:
            _log.warning("the host's id cannot be kept", file=str(self._file), why=str(problem))
