"""`make up` and `make down`: what they want to know first, what they say, what they take away."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.stack import compose, up
from deploy.stack.compose import Stack


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """With data of ours and of others, and a `.env`; no engine."""
    for name in (*up.OURS, "theirs"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setattr(compose, "ENV_FILE", tmp_path / ".env")
    made = Stack(data=tmp_path / "data", environment={}, demo=True)
    made.remember()
    return made


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to ranges and by Compose, in order."""
    seen: list[str] = []

    def stop_all() -> list[str]:
        seen.append("ranges stopped")
        return ["a"]

    def by_compose(_: Stack, *words: str, **__: object) -> str:
        seen.append(" ".join(words))
        return ""

    monkeypatch.setattr(up, "stop_all", stop_all)
    monkeypatch.setattr(up, "remove_all", lambda: seen.append("ranges removed"))
    monkeypatch.setattr(Stack, "compose", by_compose)
    monkeypatch.setattr(up, "engine_socket", lambda _: Path("/nothing"))
    monkeypatch.setattr(up, "engine_process", lambda _: os.getpid())
    return seen


def test_down_keeps_ranges_and_data(stack: Stack, done: list[str], tmp_path: Path) -> None:
    """Stopped, not removed; volumes, secrets and what the next start has to know stay, and it is said."""
    said = up.down(stack, purge=False)
    assert done == ["ranges stopped", "down --remove-orphans --timeout 45"]
    assert {path.name for path in stack.data.iterdir()} == {*up.OURS, "theirs"}
    assert (tmp_path / ".env").exists()
    assert "ranges stopped: a" in said
    assert "PURGE=1" in said


def test_purge_leaves_nothing_of_ours(stack: Stack, done: list[str], tmp_path: Path) -> None:
    """Ranges, volumes, secrets, data and `.env` go; what others keep in the data folder does not."""
    up.down(stack, purge=True)
    assert done == ["ranges removed", "down --volumes --remove-orphans --timeout 45"]
    assert [path.name for path in stack.data.iterdir()] == ["theirs"]
    assert not (tmp_path / ".env").exists()


def test_data_that_cannot_be_removed_is_named(stack: Stack, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than left behind in silence."""
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    with pytest.raises(
        MachineError, match="registry, redis, spool, scratch, engine, layers, secrets, cache; run this as root"
    ):
        up.down(stack, purge=True)


def test_ports_are_looked_at_unless_they_are_ours_already() -> None:
    """Each by the setting that moves it; a service that runs has its port."""
    assert up.wanted_ports({"STACK_API_PORT": "1234"}, []) == {"STACK_API_PORT": 1234, "STACK_REGISTRY_PORT": 5000}
    assert up.wanted_ports({}, ["redis", "registry"]) == {"STACK_API_PORT": 8070}
    assert up.wanted_ports({}, ["api", "registry"]) == {}


@pytest.mark.parametrize("port", ["http", "0", "70000", ""])
def test_a_port_that_is_none_is_named(port: str) -> None:
    """With its variable, before Compose reads it."""
    with pytest.raises(MachineError, match="STACK_API_PORT"):
        up.wanted_ports({"STACK_API_PORT": port}, [])


def test_the_addresses_are_the_ones_there_are() -> None:
    """Ports as they were moved, and commands that need no plugin of docker's; beside CYROID its Redis is not ours."""
    own = up.addresses(Stack(data=Path("/d"), environment={"STACK_API_PORT": "81"}, demo=False))
    assert "http://127.0.0.1:81/readyz" in own
    assert "127.0.0.1:81/\n" not in own
    assert "docker compose" not in own
    assert "docker exec cyroid-images-redis-1 redis-cli" in own
    beside = up.addresses(Stack(data=Path("/d"), environment={}, demo=False, join=True))
    assert "redis-cli" not in beside


def test_each_of_several_hosts_is_told_what_it_has() -> None:
    """The deployer's log is on the first host, which may let others in; a further one looks at its link."""
    first = up.addresses(Stack(data=Path("/d"), environment={"STACK_DOOR_ADDRESS": "10.0.0.1"}, demo=False))
    further = up.addresses(Stack(data=Path("/d"), environment={"STACK_FIRST_HOST": "10.0.0.1"}, demo=False))
    alone = up.addresses(Stack(data=Path("/d"), environment={}, demo=False))
    assert ["hosts add" in text for text in (first, further, alone)] == [True, False, False]
    assert ["cyroid-images-deployer-1" in text for text in (first, further, alone)] == [True, False, True]
    assert ["cyroid-images-link-1" in text for text in (first, further, alone)] == [False, True, False]


def test_beside_cyroid_its_redis_has_to_be_named_once(stack: Stack, done: list[str]) -> None:
    """Handed on through standard input; afterwards the secrets folder knows it."""
    joined = Stack(data=stack.data, environment={"STACK_REDIS_URL": "redis://u:p@172.30.0.12:6379/0"}, demo=False)
    up._know_redis(joined)
    assert done[0].endswith("--redis-url -")
    assert "u:p" not in done[0]
    with pytest.raises(MachineError, match="STACK_REDIS_URL"):
        up._know_redis(stack)
    (stack.data / "secrets/services").mkdir()
    up._know_redis(stack)
    assert len(done) == 1


@pytest.mark.parametrize(
    ("variables", "more", "told"),
    [
        ({"STACK_DOOR_ADDRESS": "10.0.0.1", "STACK_FIRST_HOST": "10.0.0.2"}, {}, "DOOR is for the first"),
        ({"STACK_FIRST_HOST": "10.0.0.2"}, {"mount": True}, "MOUNT=0"),
        ({"STACK_FIRST_HOST": "10.0.0.2"}, {"join": True}, "without JOIN"),
        ({"STACK_DOOR_ADDRESS": "10.0.0.1"}, {"join": True}, "without JOIN"),
    ],
)
def test_what_a_host_cannot_be_together(variables: dict[str, str], more: dict[str, bool], told: str) -> None:
    """One clear line before anything starts."""
    with pytest.raises(MachineError, match=told):
        up.check_hosts(Stack(data=Path("/d"), environment=variables, demo=False, **more))  # type: ignore[arg-type]
    up.check_hosts(Stack(data=Path("/d"), environment={**variables, "STACK_FIRST_HOST": ""}, demo=False))
