"""deploy.lab.debian: packages come also where apt's lists are empty, as in most containers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.machine.debian import unpack_packages


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an apt-get with empty lists; its `log` has what was asked. With `broken` no mirror answers."""
    folder = tmp_path / "apt"
    (folder / "hello/usr/share").mkdir(parents=True)
    (folder / "hello/usr/share/hello").write_text("hello\n")
    (folder / "hello/DEBIAN").mkdir()
    control = "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: x\n"
    (folder / "hello/DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", "hello", "hello_1_all.deb"], cwd=folder, check=True, capture_output=True)
    (folder / "bin").mkdir()
    (folder / "bin/apt-get").write_text(
        "#!/bin/sh\n"
        f"cd {folder}\n"
        'for word; do case "$word" in update|download) asked=$word;; esac; done\n'
        "echo $asked >>log\n"
        "[ $asked = update ] && { [ ! -e broken ] && touch lists; exit; }\n"
        "[ -e lists ] || { echo 'E: Unable to locate package hello' >&2; exit 100; }\n"
        'cp hello_1_all.deb "$OLDPWD"\n'
    )
    (folder / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return folder


def test_empty_lists_are_fetched_once(apt: Path, tmp_path: Path) -> None:
    """The download is tried, the lists are brought, and it is tried again; with lists it is one step."""
    for number, expected in ((1, ["download", "update", "download"]), (2, ["download"])):
        (apt / "log").write_text("")
        root = tmp_path / f"root-{number}"
        unpack_packages(["hello"], root, tmp_path / f"downloads-{number}")
        assert (root / "usr/share/hello").read_text() == "hello\n"
        assert (apt / "log").read_text().split() == expected


def test_without_a_mirror_it_says_what_to_look_at(apt: Path, tmp_path: Path) -> None:
    """Which packages, that the lists were tried, what apt said."""
    (apt / "broken").touch()
    with pytest.raises(MachineError, match="hello cannot be downloaded, also not after `apt-get update`") as raised:
        unpack_packages(["hello"], tmp_path / "root", tmp_path / "downloads")
    assert "reaches its Debian mirror" in str(raised.value)
