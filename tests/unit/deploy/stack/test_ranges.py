"""Ranges are added whole or not at all, and only what is ours is touched."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.stack import bridges, range_networks, ranges
from deploy.stack.compose import Stack
from deploy.stack.range_networks import DEMO, free_subnet

POOL = ipaddress.IPv4Network("172.30.1.0/24")


class Engine:
    """`docker` and `docker compose`, with labels on networks and containers. `fails`: a word that ends a command."""

    def __init__(self, *, gateway: bool = True, fails: str = "") -> None:
        self.gateway, self.fails = gateway, fails
        self.networks: dict[str, str] = {"bridge": "", "cyroid-ranges-1": ""}
        self.containers: dict[str, str] = {}
        self.secrets: set[str] = set()
        self.attached: list[str] = []
        self.bridge = ""
        self.closed: list[str] = []
        self.claimed: list[str] = []

    def docker(self, *words: str, environment: Mapping[str, str] | None = None, seconds: float = 0) -> str:
        if self.fails and self.fails in words:
            raise MachineError(f"`docker {words[0]}` failed")
        return self._answer(words) or self._do(words)

    def _answer(self, words: tuple[str, ...]) -> str:
        found: list[str] = []
        match words[:2]:
            case ("network", "ls"):
                found = [name for name, label in self.networks.items() if label or "--filter" not in words]
            case ("network", "inspect"):
                found = [self.bridge] if bridges.FORM in words else ["172.30.1.16/29"]
            case ("ps", "--all") if "network=cyroid-ranges-a" in words:
                found = self.attached
            case ("ps", "--all"):
                found = [name for name in self.containers if f"name=^/?{name}$" in words]
        return " ".join(found)

    def _do(self, words: tuple[str, ...]) -> str:
        match words[:2]:
            case ("network", "create"):
                self.networks[words[-1]] = words[words.index("--label") + 1]
                (self.bridge,) = (word.partition("=")[2] for word in words if word.startswith(bridges.BRIDGE))
            case ("network", "rm"):
                del self.networks[words[-1]]
            case ("network", "connect"):
                self.attached.append(words[-1])
            case ("network", "disconnect"):
                self.attached.remove(words[-1])
            case ("run", "--detach"):
                self.containers[words[words.index("--name") + 1]] = "running"
            case ("rm", "--force"):
                del self.containers[words[-1]]
        return ""

    def compose(self, *words: str, **_: object) -> str:
        match words:
            case ("ps", "--quiet", service):
                return "" if service == "range-gateway" and not self.gateway else f"id-{service}"
            case ("exec", "--no-TTY", "range-gateway", "cyroid-images", "ranges", "claim", name):
                if self.fails == "claim":
                    raise MachineError(f"error: range {name} is on host b since then")
                self.claimed.append(name)
            case ("exec", "--no-TTY", "range-gateway", "cyroid-images", "ranges", "release", name):
                self.claimed.remove(name)
            case (*_, "--ranges", name):
                self.secrets.add(name)
            case (*_, "--forget", name):
                self.secrets.discard(name)
            case ("exec", "--no-TTY", "bridge-guard", *_, bridge):
                self.closed.append(bridge)
        return ""


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Engine], Stack]:
    """A stack on an `Engine`."""

    def made(engine: Engine) -> Stack:
        (tmp_path / "secrets").mkdir()
        for module in (ranges, range_networks, bridges):
            monkeypatch.setattr(module, "docker", engine.docker)
        monkeypatch.setattr(Stack, "compose", lambda _, *words, **__: engine.compose(*words))
        monkeypatch.setattr(ranges, "image_there", lambda name: True)
        monkeypatch.setattr(ranges, "nested_options", lambda image: ("--cap-drop", "ALL"))
        return Stack(data=tmp_path, environment={}, demo=False)

    return made


@pytest.mark.parametrize("name", ["1", "2", "range-1", "range-2", "", "../x", "a b"])
def test_names_of_the_demo_ranges_are_refused(name: str, use: Callable[[Engine], Stack]) -> None:
    """And what is no name: nothing is touched, whether to add or to remove."""
    engine = Engine()
    stack = use(engine)
    for verb in (ranges.add, ranges.remove):
        with pytest.raises(MachineError, match=r"demo ranges|is no range id"):
            verb(stack, name)
    assert list(engine.networks) == ["bridge", "cyroid-ranges-1"]


def test_a_range_comes_and_goes(use: Callable[[Engine], Stack]) -> None:
    """Secret, network and container; afterwards none of them."""
    engine = Engine()
    stack = use(engine)
    ranges.add(stack, "a")
    assert range_networks.names() == ["a"]
    assert (list(engine.containers), engine.secrets) == (["cyroid-range-a"], {"a"})
    ranges.remove(stack, "a")
    assert (engine.containers, engine.secrets, range_networks.names()) == ({}, set(), [])


@pytest.mark.parametrize("fails", ["create", "connect", "run"])
def test_a_range_that_cannot_be_finished_leaves_nothing(fails: str, use: Callable[[Engine], Stack]) -> None:
    """Wherever it stops: no container, network, secret or claim, and the reason is the one that is told."""
    engine = Engine(fails=fails)
    stack = replace(use(engine), environment={"STACK_HOST_ID": "a"})
    with pytest.raises(MachineError, match=f"docker {'run' if fails == 'run' else 'network'}"):
        ranges.add(stack, "a")
    assert (engine.containers, engine.secrets, engine.claimed) == ({}, set(), [])
    assert list(engine.networks) == ["bridge", "cyroid-ranges-1"]


def test_a_ranges_bridge_is_closed_before_the_range_starts(use: Callable[[Engine], Stack]) -> None:
    """The guard has been asked for it when the container would have been run."""
    engine = Engine(fails="run")
    with pytest.raises(MachineError):
        ranges.add(use(engine), "a")
    assert engine.closed == ["cyr-ac1e0118"]


def test_without_the_gateway_no_range_is_begun(use: Callable[[Engine], Stack]) -> None:
    """Nothing is made that would have to be taken back."""
    engine = Engine(gateway=False)
    stack = use(engine)
    with pytest.raises(MachineError, match="range-gateway does not run"):
        ranges.add(stack, "a")
    assert engine.secrets == set()


def test_a_range_that_is_there_stays_when_it_is_added_again(use: Callable[[Engine], Stack]) -> None:
    """It is said, and nothing of it is taken back."""
    engine = Engine()
    stack = use(engine)
    ranges.add(stack, "a")
    with pytest.raises(MachineError, match="already"):
        ranges.add(stack, "a")
    assert (list(engine.containers), engine.secrets, range_networks.names()) == (["cyroid-range-a"], {"a"}, ["a"])


def test_a_network_of_that_name_which_is_not_ours_is_left_alone(use: Callable[[Engine], Stack]) -> None:
    """Neither used nor removed: it has not our label."""
    engine = Engine()
    engine.networks["cyroid-ranges-a"] = ""
    stack = use(engine)
    with pytest.raises(MachineError, match="not one of ours"):
        ranges.add(stack, "a")
    ranges.remove(stack, "a")
    assert "cyroid-ranges-a" in engine.networks


def test_a_range_goes_while_its_gateway_is_down(use: Callable[[Engine], Stack]) -> None:
    """Its secret too, so that the gateway does not know it any more when it comes back."""
    engine = Engine()
    stack = use(engine)
    ranges.add(stack, "a")
    assert "id-range-gateway" in engine.attached
    engine.gateway = False
    ranges.remove(stack, "a")
    assert engine.attached == []  # the stopped one as well: on a network that is gone it would never start again
    assert (engine.containers, engine.secrets, range_networks.names()) == ({}, set(), [])


def test_all_ranges_go_at_once(use: Callable[[Engine], Stack]) -> None:
    """Containers and networks; their secrets go with the data folder."""
    engine = Engine()
    ranges.add(use(engine), "a")
    ranges.remove_all()
    assert (engine.containers, engine.attached, range_networks.names()) == ({}, [], [])


def test_a_ranges_network_is_the_first_that_is_free() -> None:
    """Not the demo ranges' places, whether these run or not, and nobody else's; None when all are taken."""
    first = free_subnet(POOL, [])
    assert first == ipaddress.IPv4Network("172.30.1.16/29")
    taken: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [first, ipaddress.IPv6Network("fd00::/64")]
    assert free_subnet(POOL, taken) == ipaddress.IPv4Network("172.30.1.24/29")
    assert free_subnet(POOL, [ipaddress.IPv4Network("172.30.0.0/16")]) is None
    every: list[ipaddress.IPv4Network] = []
    while (part := free_subnet(POOL, every)) is not None:
        every.append(part)
    assert len(every) == 30
    assert not any(part.overlaps(DEMO) for part in every)


def test_an_id_that_another_host_has_is_refused_at_once(use: Callable[[Engine], Stack]) -> None:
    """Before anything is made, and without waiting for the range; this host's own id is claimed."""
    engine = Engine(fails="claim")
    stack = replace(use(engine), environment={"STACK_HOST_ID": "a"})
    with pytest.raises(MachineError, match="range a is on host b"):
        ranges.add(stack, "a")
    assert (engine.secrets, list(engine.networks)) == (set(), ["bridge", "cyroid-ranges-1"])
    engine.fails = ""
    ranges.add(stack, "a")
    assert engine.claimed == ["a"]
