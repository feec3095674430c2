"""Docker's plugins: the machine's own, or those in our cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.stack import plugins


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(plugins, "need", lambda command, package: command)
    monkeypatch.setattr(plugins, "default_cache", lambda: tmp_path)
    plugins.docker_environment.cache_clear()
    yield
    plugins.docker_environment.cache_clear()


def answers(monkeypatch: pytest.MonkeyPatch, *, own: bool, cached: list[bool]) -> list[Path]:
    """Whether the machine's plugins work, and ours at each further look; the folders into which some are fetched."""
    fetched: list[Path] = []

    def look(plugin: str, environment: Mapping[str, str]) -> bool:
        return bool(fetched or cached[0]) if "DOCKER_CONFIG" in environment else own

    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setattr(plugins, "_answers", look)
    monkeypatch.setattr(plugins, "_fetch", fetched.append if cached[-1] else lambda folder: None)
    return fetched


def test_the_machines_own_plugins_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched, and docker's configuration stays where it is."""
    fetched = answers(monkeypatch, own=True, cached=[False])
    assert "DOCKER_CONFIG" not in plugins.docker_environment()
    assert fetched == []


def test_missing_ones_are_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Into the cache, which docker is then told to look into."""
    fetched = answers(monkeypatch, own=False, cached=[False, True])
    assert plugins.docker_environment()["DOCKER_CONFIG"] == str(tmp_path / "docker-config")
    assert fetched == [tmp_path / "docker-config/cli-plugins"]
    plugins.docker_environment()
    assert len(fetched) == 1


def test_plugins_that_do_not_work_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    answers(monkeypatch, own=False, cached=[False, False])
    with pytest.raises(MachineError, match="docker compose"):
        plugins.docker_environment()
