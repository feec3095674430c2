"""The command line with fakes behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner, Result

from events.lease import GroupStatus
from services.adapters.openers import Adapters
from services.cli import main
from tests.unit.services.twins import Cluster


@dataclass
class Shell:
    """Runs commands and reads what they print."""

    world: Cluster
    adapters: Adapters

    def run(self, *arguments: str, given: bytes | None = None, **environment: str) -> Result:
        """One command; anything but a clean exit is raised, as a person would see a traceback."""
        result = CliRunner().invoke(
            main,
            ["--key-prefix", "test", *arguments],
            input=given,
            env={**environment, "NO_COLOR": "1"},
            catch_exceptions=False,
            obj=self.adapters,
        )
        assert "Traceback" not in result.output
        return result

    def json(self, *arguments: str, **environment: str) -> Any:
        """What a command with --json prints; it must have ended well."""
        result = self.run(*arguments, "--json", given=None, **environment)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def shell() -> Shell:
    """A shell in a world of fakes."""
    world = Cluster()
    return Shell(world, world.adapters)


def stands_at(shell: Shell, monkeypatch: pytest.MonkeyPatch, group: str, lag: int | None) -> None:
    """The group stands so on every stream that is asked about."""

    async def groups(streams: Sequence[str], entries: int = 0) -> list[GroupStatus]:
        return [
            GroupStatus(
                stream=stream,
                group=group,
                lag=lag,
                pending=0,
                deferred=0,
                oldest_unacked_seconds=0,
                oldest_undelivered_seconds=0,
            )
            for stream in streams
        ]

    monkeypatch.setattr(shell.world.bus, "groups", groups)
