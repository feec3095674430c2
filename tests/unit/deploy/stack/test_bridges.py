"""Bridges are named so that the guard knows them, and one that stays open is said in one line."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from deploy.container.bridge_guard import PREFIX
from deploy.machine.commands import MachineError
from deploy.stack import bridges
from deploy.stack.compose import Stack

BRIDGES = "cyr-1 br-0123456789ab"


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stack:
    """On an engine with a range's network of today and one of an earlier version."""

    def docker(*words: str) -> str:
        return BRIDGES if words[1] == "inspect" else "id"

    monkeypatch.setattr(bridges, "docker", docker)
    return Stack(data=tmp_path, environment={}, demo=False)


def answers(monkeypatch: pytest.MonkeyPatch, text: str | MachineError) -> list[tuple[str, ...]]:
    """The guard says `text`; what it was asked."""
    asked: list[tuple[str, ...]] = []

    def compose(_: Stack, *words: str) -> str:
        asked.append(words)
        if isinstance(text, MachineError):
            raise text
        return text

    monkeypatch.setattr(Stack, "compose", compose)
    return asked


def test_a_bridges_name_is_short_and_its_own() -> None:
    """Two networks never have the same subnet; the kernel takes 15 letters."""
    names = {bridges.bridge_name(part) for part in ipaddress.IPv4Network("255.255.0.0/16").subnets(new_prefix=29)}
    assert len(names) == 2**13
    assert all(name.startswith(PREFIX) and len(name) <= 15 for name in names)


def test_bridges_that_are_closed_are_not_talked_about(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The guard is asked for each by name."""
    asked = answers(monkeypatch, "")
    bridges.close_bridges(stack)
    assert [words[-2:] for words in asked] == [tuple(BRIDGES.split())]
    assert capsys.readouterr().err == ""


def test_a_bridge_that_stays_open_is_said_with_the_rule_for_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line; one rule for all that bear our name."""
    answers(monkeypatch, "cyr-1\n")
    bridges.close_bridges(stack)
    (line,) = capsys.readouterr().err.splitlines()
    assert "cyr-1" in line
    assert line.endswith("ip6tables -t raw -I PREROUTING -i cyr-+ -j DROP")


def test_without_a_guard_every_bridge_counts_as_open(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Why it does not work is said as well."""
    answers(monkeypatch, MachineError("no such container"))
    bridges.close_bridges(stack)
    said = capsys.readouterr().err
    assert "no such container" in said
    assert "-i br-0123456789ab -j DROP; ip6tables -t raw -I PREROUTING -i cyr-+ -j DROP" in said
