"""The project's own roles as a child process, as `cyroid-images serve` runs them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.lab.server import Server

ROOT = Path(__file__).resolve().parents[2]
"""The checkout: processes run in it, so that its code is the one that runs."""


def variables(settings: Mapping[str, object]) -> dict[str, str]:
    """`redis_url` → `CYROID_REDIS_URL`, values as text."""
    return {f"CYROID_{name.upper()}": str(value) for name, value in settings.items()}


class RoleServer(Server):
    """`serve ROLE…` with `settings` by their field names. It answers once it has said that it is running."""

    stops_first = True
    stop_seconds = 30.0

    def __init__(
        self, name: str, folder: Path, mark: str, *, roles: Sequence[str], settings: Mapping[str, object]
    ) -> None:
        super().__init__(name, folder, mark)
        self._roles = list(roles)
        self._settings = dict(settings)
        self._said_before = 0

    @property
    def working_folder(self) -> Path:
        return ROOT

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **variables(self._settings), "CYROID_LOG_FORMAT": "json"}

    def prepare(self) -> None:
        self._said_before = self.log.stat().st_size if self.log.exists() else 0

    def command(self) -> list[str]:
        return [sys.executable, "-m", "services", "serve", *self._roles]

    def answers(self) -> bool:
        return b'"event":"running"' in self.said()

    def said(self) -> bytes:
        """Its log since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._said_before)
            return log.read()
