"""How the stack's parts are chosen: files, variables, images."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import yaml

from deploy.machine.commands import MachineError
from deploy.stack import compose, env_file
from deploy.stack.compose import Stack, chosen, compose_files, standins


@pytest.mark.parametrize(
    ("join", "mount", "names"),
    [
        (False, False, ["docker-compose.yml"]),
        (True, False, ["docker-compose.yml", "compose.cyroid.yml"]),
        (True, True, ["docker-compose.yml", "compose.cyroid.yml", "compose.write.yml"]),
    ],
)
def test_a_neighbour_and_mounted_layers_choose_the_files(join: bool, mount: bool, names: list[str]) -> None:
    """One more beside CYROID, one more with mounted layers."""
    assert [file.name for file in compose_files(join=join, mount=mount)] == names


def test_with_mounted_layers_the_pusher_writes_where_the_registry_reads() -> None:
    """As the registry's user, which takes two capabilities; nothing else changes."""
    whole, more = (yaml.safe_load(file.read_text()) for file in compose_files(join=False, mount=True))
    changed = more["services"]
    assert list(changed) == ["registry-pusher"]
    pusher, before = changed["registry-pusher"], whole["services"]["registry-pusher"]
    assert set(pusher["cap_add"]) - set(before["cap_add"]) == {"SETUID", "SETGID"}
    storage = pusher["environment"]["CYROID_REGISTRY_WRITE_STORAGE"]
    assert pusher["volumes"] == [whole["services"]["registry"]["volumes"][0]]
    assert pusher["volumes"][0].endswith(f":{storage}")


@pytest.mark.parametrize(
    ("release", "said", "loops"),
    [
        ("6.8.0-45-generic", "", True),
        ("6.8.0-45-generic", "0", False),
        ("6.12.1", "", False),
        ("6.12.1", "1", True),
        ("7.0", "", False),
        ("unknown", "", False),
    ],
)
def test_with_an_older_kernel_the_layer_mounter_may_use_loop_devices(
    release: str, said: str, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or as the operator says; without mounted layers never."""
    monkeypatch.setattr(platform, "release", lambda: release)
    for mount in (True, False):
        stack = Stack(data=Path("/data"), environment={"STACK_LOOP_DEVICES": said}, demo=False, mount=mount)
        assert ("compose.loops.yml" in [file.name for file in stack.files()]) == (loops and mount)


def test_of_the_devices_the_layer_mounter_opens_loop_devices_alone() -> None:
    """It reads them, and asks for free ones; all else in /dev stays closed, and it gets no more rights."""
    more = yaml.safe_load(compose.LOOPS.read_text())["services"]
    assert list(more) == ["layer-mounter"]
    assert sorted(more["layer-mounter"]) == ["device_cgroup_rules", "volumes"]
    assert more["layer-mounter"]["device_cgroup_rules"] == ["b 7:* r", "c 10:237 rw"]


def test_what_is_said_now_comes_before_what_was_said_then() -> None:
    """Then the operator's own lines; what was found, a stand-in included, is looked for again."""
    remembered = {
        "CYROID_DATA_DIR": "/then",
        "STACK_API_PORT": "1",
        "STACK_JOIN": "1",
        "STACK_ENGINE_GID": "7",
        "STACK_REDIS_IMAGE": "cyroid/redis:7",
    }
    found = chosen({"CYROID_DATA_DIR": "/now"}, {"STACK_API_PORT": "2"}, remembered)
    assert found == {"CYROID_DATA_DIR": "/now", "STACK_API_PORT": "2", "STACK_JOIN": "1"}


def test_a_stand_in_is_taken_where_the_real_one_is_not() -> None:
    """And only then, and not over what somebody chose."""
    both = ["cyroid/registry:2", "cyroid/redis:7"]
    assert standins({}, both) == {"STACK_REGISTRY_IMAGE": both[0], "STACK_REDIS_IMAGE": both[1]}
    assert standins({}, ["registry:2", *both]) == {"STACK_REDIS_IMAGE": both[1]}
    assert standins({"STACK_REDIS_IMAGE": "mine:1"}, both) == {"STACK_REGISTRY_IMAGE": both[0]}
    assert standins({}, []) == {}


def test_bare_compose_gets_what_was_found_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's group, the files and the data folder; the password of CYROID's Redis stays out."""
    monkeypatch.setattr(compose, "ENV_FILE", tmp_path / ".env")
    environment = {"STACK_ENGINE_GID": "998", "STACK_REDIS_URL": "redis://u:secret@r/0", "HOME": "/root"}
    Stack(data=Path("/d"), environment=environment, demo=False, join=True).remember()
    _, written = env_file.read(tmp_path / ".env")
    assert written == {
        "STACK_ENGINE_GID": "998",
        "CYROID_DATA_DIR": "/d",
        "COMPOSE_FILE": "docker-compose.yml:deploy/compose.cyroid.yml",
    }
    compose.forget()
    assert not (tmp_path / ".env").exists()


def test_images_of_others_are_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours that are missing are built, with no more than is needed; another name has to be there already."""
    built: list[object] = []
    monkeypatch.setattr(compose, "build_all", lambda **what: built.append(what))
    compose._build(["cyroid/range:28.5"])
    compose._build(["cyroid/images:latest"])
    compose._build(["cyroid/layer-mounter:latest"])
    assert built == [
        {"base": "auto", "engines": ["28.5"], "services": False, "mounter": False},
        {"base": "auto", "engines": [], "services": True, "mounter": False},
        {"base": "auto", "engines": [], "services": False, "mounter": True},
    ]
    with pytest.raises(MachineError, match="mine:1"):
        compose._build(["cyroid/images:latest", "mine:1"])
    assert len(built) == 3
