"""Restarts in a range: the engine under its running containers, and the agent."""

from __future__ import annotations

import json
from typing import Any

from deploy.machine.polling import poll
from tests.stack.operator import Stack, context

STATUS = "cat /run/range/status.json"
STATE = "docker inspect --format '{{.State.Running}} {{.State.Pid}} {{.State.StartedAt}}' lives"


def parts(stack: Stack) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(stack.in_range("r28", STATUS).stdout)
    return found


def kill(stack: Stack, part: str) -> None:
    """Kills a part of range r28 and waits until the init has started it again and it is well."""
    before = parts(stack)[part]
    stack.in_range("r28", f"kill -9 {before['pid']}")
    back = poll(lambda: parts(stack)[part]["starts"] > before["starts"], seconds=90.0, every=0.5)
    assert back, f"{part} was not started again"
    well = poll(
        lambda: stack.in_range("r28", "range-healthy", check=False).returncode == 0 and parts(stack)[part]["pid"] > 0,
        seconds=120.0,
        every=0.5,
    )
    assert well, stack.docker("logs", "--tail", "30", "cyroid-range-r28")


def test_an_engine_killed_under_a_container_comes_back_to_it(stack: Stack, images: list[str]) -> None:
    """The container lives on in the same process, the init brings the engine back, the agent works on with it."""
    stack.deploy("before-kill", ["r28"], images[0])
    stack.in_range("r28", f"docker run --detach --name lives --network none {images[0]} sleep 86400")
    before = stack.in_range("r28", STATE).stdout
    agent = parts(stack)["agent"]["pid"]
    kill(stack, "engine")
    assert stack.in_range("r28", STATE).stdout == before
    assert before.startswith(b"true ")
    assert parts(stack)["agent"]["pid"] == agent
    stack.deploy("engine-back", ["r28"], images[1])
    stack.in_range("r28", "docker rm --force lives")


def test_an_agent_that_is_killed_comes_back(stack: Stack, images: list[str]) -> None:
    """The engine does not notice, and the next deployment finds an agent."""
    engine = parts(stack)["engine"]["pid"]
    kill(stack, "agent")
    assert parts(stack)["engine"]["pid"] == engine
    stack.cyroid("images", "build", "-", "-t", "survival:1", stdin=context("survival"))
    ((image,),) = stack.deploy("agent-back", ["r28"], "survival:1").values()
    assert image["how"] == "pulled"
    assert stack.content("r28", "survival:1") == "survival"
