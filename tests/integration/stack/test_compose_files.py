"""docker-compose.yml and what can be laid over it, read by Compose itself; no engine is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.stack.plugins import docker, docker_environment

ROOT = Path(__file__).parents[3]
BASE = ROOT / "docker-compose.yml"
#: Those that change services of another one.
BELOW = {"compose.archives.yml": ("compose.further-host.yml",)}
OVERRIDES = sorted((ROOT / "deploy").glob("compose.*.yml"))


@pytest.fixture(scope="module")
def environment() -> Mapping[str, str]:
    """Compose without settings of the person's own, and without an engine."""
    own = {name: value for name, value in docker_environment().items() if not name.startswith(("CYROID_", "STACK_"))}
    return {**own, "DOCKER_HOST": "unix:///nowhere/docker.sock"}


def check(environment: Mapping[str, str], *files: Path) -> None:
    options = [word for file in files for word in ("--file", str(file))]
    profile = ("--profile", "demo")
    docker(
        "compose", "--project-directory", str(ROOT), *options, *profile, "config", "--quiet", environment=environment
    )


def test_compose_takes_the_file_alone(environment: Mapping[str, str]) -> None:
    """With the ranges of profile demo."""
    check(environment, BASE)


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda path: path.name)
def test_compose_takes_every_override(environment: Mapping[str, str], override: Path) -> None:
    """Laid over the file as its head says."""
    check(environment, BASE, *(ROOT / "deploy" / name for name in BELOW.get(override.name, ())), override)


def test_compose_refuses_what_it_does_not_know(environment: Mapping[str, str], tmp_path: Path) -> None:
    """A word that YAML takes and Compose does not."""
    assert OVERRIDES
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("services:\n  redis:\n    helthcheck: {}\n")
    with pytest.raises(MachineError, match="helthcheck"):
        check(environment, BASE, wrong)
