"""A command that waits for a role says whether any process serves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from events.bus import IndexWrite, Outcome
from services.runtime.heartbeat import RoleBeat
from tests.unit.services.cli.conftest import Shell

WAITING = {
    "collector": (("images", "rm", "web:1", "--timeout", "0.05"), ("registry", "collect", "--timeout", "0.05")),
    "registry-pusher": (("images", "fetch", "web:1", "--timeout", "0.05"),),
}


@pytest.mark.parametrize(("role", "command"), [(role, one) for role, many in WAITING.items() for one in many])
def test_a_command_says_that_it_waits_for_a_role_that_nobody_serves(
    shell: Shell, role: str, command: tuple[str, ...]
) -> None:
    """One line before the waiting, and another after it."""
    result = shell.run(*command)
    assert f"no process serves the role {role}" in result.stderr
    assert "there is no answer yet" in result.stderr
    assert result.exit_code == 5


@pytest.mark.parametrize(("role", "command"), [(role, many[0]) for role, many in WAITING.items()])
def test_a_command_says_nothing_of_a_role_that_is_served(shell: Shell, role: str, command: tuple[str, ...]) -> None:
    """Its answer may take a while."""
    asyncio.run(_serve(shell, role))
    assert "no process serves" not in shell.run(*command).stderr


async def _serve(shell: Shell, role: str) -> None:
    now = datetime.now(UTC)
    beat = RoleBeat(role=role, host="h", pid=7, version="1", at=now)
    bus = shell.world.bus
    await bus.beat(f"test:role:{role}:h.7", msgspec.json.encode(beat), 60.0)
    await bus.commit(Outcome(index=(IndexWrite("test:index:roles", f"{role}:h.7", now.timestamp()),)))
