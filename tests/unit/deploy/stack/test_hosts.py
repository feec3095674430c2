"""Further hosts of an installation: what the first one gives, and what each takes in."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from deploy.container.bundle import Bundle, read_bundle
from deploy.container.host_proxies import FAR_TAR
from deploy.container.prepare import prepare, prepare_further
from deploy.machine.commands import MachineError
from deploy.stack import hosts
from deploy.stack.compose import Stack


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Compose was told. `prepare` itself runs here, on the stack's folder."""
    seen: list[str] = []

    def by_compose(stack: Stack, *words: str, stdin: str | None = None, **_: object) -> str:
        seen.append(words[0])
        if words[0] == "run":
            prepare(stack.data, prefix=stack.key_prefix, bundle=stdin)
        return ""

    monkeypatch.setattr(Stack, "compose", by_compose)
    return seen


def stack(folder: Path, **variables: str) -> Stack:
    return Stack(data=folder, environment=variables, demo=False)


def test_a_further_host_gets_what_it_needs_and_takes_it_in(said: list[str], tmp_path: Path) -> None:
    """Certificate, passwords and the key for pull tokens; its link and cache are configured, its own ranges are too."""
    first = stack(tmp_path / "a", STACK_DOOR_ADDRESS="10.0.0.1", STACK_KEY_PREFIX="lab")
    hosts.open_door(first)
    prepare(first.data, prefix="lab")
    hosts.add(first, "b", tmp_path / "b.json")
    assert said == ["run", "restart"]
    assert hosts.names(first) == ["b"]
    assert stat.S_IMODE((tmp_path / "b.json").stat().st_mode) == 0o600
    assert "bind" in (first.data / "secrets/hosts/door/haproxy.cfg").read_text()

    text, environment = (tmp_path / "b.json").read_text(), dict[str, str]()
    hosts.take_in(text, environment)
    assert environment == {
        "STACK_FIRST_HOST": "10.0.0.1",
        "STACK_KEY_PREFIX": "lab",
        "STACK_ARCHIVES_ADDRESS": "",
        "STACK_TAR_URL": "http://cyroid-tar:7070",
    }
    further = stack(tmp_path / "b", **environment)
    hosts.keep(further, text)
    prepare(further.data, prefix="lab", ranges=["r"])
    prepare_further(further.data, "10.0.0.1", cache_size="5g")
    for same in hosts.SHARED:
        assert (further.data / "secrets" / same).read_text() == (first.data / "secrets" / same).read_text()
    key = (first.data / "secrets/deployer/registry_pull_key").read_text().strip()
    assert key in (further.data / "secrets/proxy/haproxy.cfg").read_text()
    assert "10.0.0.1:6380" in (further.data / "secrets/link/haproxy.cfg").read_text()
    link, proxy = ((further.data / f"secrets/{one}/haproxy.cfg").read_text() for one in ("link", "proxy"))
    assert {line.split()[1] for line in link.splitlines() if line.startswith("  bind")} == {
        "172.30.0.16:6379",
        "172.30.0.16:5000",
        "172.30.0.16:5443",
        FAR_TAR,
        "127.0.0.1:5002",
    }
    assert "use_backend far_tar if by_host !{ path_beg /hosts/ }" in proxy
    assert "path_beg /hosts/b/ " in proxy
    of_first = (first.data / "secrets/proxy/haproxy.cfg").read_text()
    assert "use_backend tar if by_host !{ path_beg /hosts/ }" in of_first
    assert "max_size=5g" in (further.data / "secrets/cache/nginx.conf").read_text()
    assert not (further.data / "secrets/hosts").exists()

    hosts.remove(first, "b")
    assert hosts.names(first) == []


def test_the_door_gets_archives_where_it_was_told(said: list[str], tmp_path: Path) -> None:
    """The address stays when a certificate is renewed, until it is taken away; a host that is removed leaves none."""
    first = stack(tmp_path / "a", STACK_DOOR_ADDRESS="10.0.0.1")
    hosts.open_door(first)
    prepare(first.data)
    door = first.data / "secrets/hosts/door/haproxy.cfg"
    for given, expected in (("10.0.0.2", "10.0.0.2"), (None, "10.0.0.2"), ("fd00::2", "fd00::2"), ("0", "")):
        hosts.add(first, "b", tmp_path / "b.json", address=given)
        environment = dict[str, str]()
        hosts.take_in((tmp_path / "b.json").read_text(), environment)
        assert environment["STACK_ARCHIVES_ADDRESS"] == expected
        assert environment["STACK_TAR_URL"].endswith("/hosts/b") == bool(expected)
        assert Stack(data=tmp_path, environment=environment, demo=False).archives == bool(expected)
        place = f"[{expected}]:5443" if ":" in expected else f"{expected}:5443"
        assert (f"server link {place} " in door.read_text()) == bool(expected)
    hosts.add(first, "b", tmp_path / "b.json", address="10.0.0.2")
    hosts.remove(first, "b")
    assert "10.0.0.2" not in door.read_text()
    assert not (first.data / "secrets/hosts/hosts/b").exists()
    for wrong in ("b.example", "10.0.0.2:5443", ""):
        with pytest.raises(MachineError, match="no IP address"):
            hosts.add(first, "b", tmp_path / "b.json", address=wrong)


def test_a_further_host_is_called_what_the_first_one_calls_it(said: list[str], tmp_path: Path) -> None:
    """So lists show the name that the operator gave; none is called as the first host."""
    first = stack(tmp_path / "a", STACK_DOOR_ADDRESS="10.0.0.1", STACK_HOST_ID="a")
    hosts.open_door(first)
    prepare(first.data)
    hosts.add(first, "b", tmp_path / "b.json")
    assert hosts.called((tmp_path / "b.json").read_text()) == "b"
    with pytest.raises(MachineError, match="a is this host"):
        hosts.add(first, "a", tmp_path / "a.json")
    with pytest.raises(MachineError, match="no name"):
        hosts.add(first, "cyroid-door", tmp_path / "a.json")


def test_without_a_door_and_without_a_bundle_it_is_said_what_to_do(tmp_path: Path) -> None:
    """On either host."""
    with pytest.raises(MachineError, match="DOOR=ADDRESS"):
        hosts.add(stack(tmp_path), "b", tmp_path / "b.json")
    prepare(tmp_path)
    with pytest.raises(ValueError, match="BUNDLE=FILE"):
        prepare_further(tmp_path, "10.0.0.1")


@pytest.mark.parametrize(
    "change",
    [
        {"first_host": "10.0.0.1 ssl verify none"},
        {"first_host": ""},
        {"files": {}},
        {"files": {"../../etc/passwd": "x"}},
        {"key_prefix": 1},
        {"more": "x"},
        {"name": "a/b"},
        {"name": 1},
        {"address": "10.0.0.1:1"},
    ],
)
def test_what_is_no_bundle_is_refused(change: dict[str, object]) -> None:
    """Nothing is written to a place that is not meant, and no configuration is changed by an address."""
    files = dict.fromkeys(("link/own.pem", "link/ca.pem", *hosts.SHARED), "x")
    whole = Bundle(first_host="10.0.0.1", key_prefix="cyroid", files=files)
    assert read_bundle(whole.text()) == whole
    older = {name: value for name, value in json.loads(whole.text()).items() if name not in ("name", "address")}
    assert read_bundle(json.dumps(older)) == whole
    with pytest.raises(ValueError, match=r"address|files|text|has to have|name"):
        read_bundle(json.dumps({**json.loads(whole.text()), **change}))
    for rubbish in ("", "[]", "{", "x" * 100_000):
        with pytest.raises(MachineError, match="no bundle"):
            hosts.take_in(rubbish, {})
