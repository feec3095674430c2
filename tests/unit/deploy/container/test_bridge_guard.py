"""The guard switches IPv6 off on the ranges' bridges and no other link, and says what stays open."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.container.bridge_guard import shut


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """As the kernel shows links, IPv6 on for each: two bridges of ours, a card, and a bridge named by the engine."""
    for name in ("cyr-1", "cyr-ac1e0110", "eth0", "br-0123456789ab"):
        (tmp_path / "conf" / name).mkdir(parents=True)
        (tmp_path / "conf" / name / "disable_ipv6").write_text("0\n")
    return tmp_path / "conf"


def off(conf: Path) -> set[str]:
    return {link.name for link in conf.iterdir() if (link / "disable_ipv6").read_text() == "1\n"}


def test_our_bridges_are_closed_and_nothing_else(conf: Path) -> None:
    """Known by their names."""
    assert shut(conf=conf) == []
    assert off(conf) == {"cyr-1", "cyr-ac1e0110"}


def test_a_bridge_of_an_earlier_version_is_closed_when_it_is_named(conf: Path) -> None:
    """The engine chose its name, so nobody knows it without asking the engine."""
    assert shut(["br-0123456789ab"], conf=conf) == []
    assert off(conf) == {"cyr-1", "cyr-ac1e0110", "br-0123456789ab"}


def test_a_switch_that_does_not_move_is_said(conf: Path) -> None:
    """Written without an error, and still on when it is read again; and one that cannot be read or written."""
    for name in ("cyr-1", "cyr-ac1e0110"):
        (conf / name / "disable_ipv6").unlink()
    (conf / "cyr-1" / "disable_ipv6").symlink_to("/dev/null")
    (conf / "cyr-ac1e0110" / "disable_ipv6").mkdir()
    assert shut(["eth0"], conf=conf) == ["cyr-1", "cyr-ac1e0110"]
    assert (conf / "eth0" / "disable_ipv6").read_text() == "1\n"


def test_a_bridge_that_is_not_seen_counts_as_open(conf: Path) -> None:
    """The engine has it, so it is in a network where the guard is not."""
    assert shut(["cyr-elsewhere"], conf=conf) == ["cyr-elsewhere"]


def test_a_kernel_without_ipv6_has_nothing_open(tmp_path: Path) -> None:
    """There is no switch, and nothing to switch off."""
    assert shut(["cyr-1"], conf=tmp_path / "none") == []
