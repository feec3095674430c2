"""Further hosts of an installation: what the first one gives, and what each takes in."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from deploy.container.bundle import Bundle, read_bundle
from deploy.container.host_link import LINK_TAR
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
    assert environment == {"STACK_FIRST_HOST": "10.0.0.1", "STACK_KEY_PREFIX": "lab"}
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
        LINK_TAR,
        "127.0.0.1:5002",
    }
    assert LINK_TAR in proxy
    assert LINK_TAR not in (first.data / "secrets/proxy/haproxy.cfg").read_text()
    assert "max_size=5g" in (further.data / "secrets/cache/nginx.conf").read_text()
    assert not (further.data / "secrets/hosts").exists()

    hosts.remove(first, "b")
    assert hosts.names(first) == []


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
    ],
)
def test_what_is_no_bundle_is_refused(change: dict[str, object]) -> None:
    """Nothing is written to a place that is not meant, and no configuration is changed by an address."""
    files = dict.fromkeys(("link/own.pem", "link/ca.pem", *hosts.SHARED), "x")
    whole = Bundle(first_host="10.0.0.1", key_prefix="cyroid", files=files)
    assert read_bundle(whole.text()) == whole
    with pytest.raises(ValueError, match=r"address|files|text|has to have"):
        read_bundle(json.dumps({**json.loads(whole.text()), **change}))
    for rubbish in ("", "[]", "{", "x" * 100_000):
        with pytest.raises(MachineError, match="no bundle"):
            hosts.take_in(rubbish, {})
