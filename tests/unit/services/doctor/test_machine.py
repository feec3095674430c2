"""Disks, sockets, versions and clocks."""

import os
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.doctor.machine import clock_problems, room, too_old, without_rights

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("free", "state", "told"),
    [
        (500e9, "ok", "500.0 GB free"),
        (40e9, "note", "nearly full"),
        (0.9e9, "wrong", "is full: 0.9 GB free of 1000 GB"),
    ],
)
def test_a_disk_that_fills_up_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str, told: str
) -> None:
    """Below a twentieth it is worth a look, below a gigabyte it is wrong."""
    monkeypatch.setattr("services.doctor.machine.shutil.disk_usage", lambda _: SimpleNamespace(free=free, total=1e12))
    found, text = room(tmp_path)
    assert found == state
    assert told in text


@pytest.mark.parametrize(
    ("gid", "mode", "advice"),
    [
        (31_234, 0o660, "usermod -aG 31234 USER, then log in again), or a container: group_add ['31234']"),
        (31_234, 0o600, "dockerd --group docker"),
        (0, 0o660, "dockerd --group docker"),
    ],
)
def test_a_socket_without_rights_is_told_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gid: int, mode: int, advice: str
) -> None:
    """What to do for a person and for a container; nobody is told to join root's group or one that may not write."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert without_rights(f"unix://{path}") is None
        about = SimpleNamespace(st_mode=stat.S_IFSOCK | mode, st_gid=gid)
        monkeypatch.setattr(Path, "stat", lambda *_, **__: about)
        monkeypatch.setattr(os, "access", lambda *_: False)
        refused = without_rights(f"unix://{path}")
        monkeypatch.undo()
    assert refused is not None
    assert f"permission denied on {path}" in refused[0]
    assert advice in refused[1]


def test_what_is_no_socket_is_told(tmp_path: Path) -> None:
    """A missing one and an address on the network are for the engine's own error."""
    (tmp_path / "file").touch()
    assert without_rights(f"unix://{tmp_path}/file") == (
        f"{tmp_path}/file is no socket",
        "correct CYROID_HOST_ENGINE_URL",
    )
    assert without_rights(f"unix://{tmp_path}/none") is None
    assert without_rights("tcp://127.0.0.1:2375") is None


@pytest.mark.parametrize(
    ("version", "old"),
    [("19.03.15", True), ("20.10.24+dfsg1", False), ("28.5.1", False), ("1.13.1", True), ("", False), ("dev", False)],
)
def test_engines_before_20_10_are_too_old(version: str, old: bool) -> None:
    """One that tells no version is not called old."""
    assert too_old(version) is old


def test_clocks_are_compared_with_how_old_a_word_may_be() -> None:
    """Ahead is told at once; behind only beyond the age that a beat may have."""
    clocks = {
        "a": NOW + timedelta(seconds=30),
        "b": NOW - timedelta(seconds=14),
        "c": NOW - timedelta(seconds=300),
        "d": NOW + timedelta(seconds=2),
    }
    assert clock_problems(clocks, NOW, late_seconds=15) == ["a is 30 s ahead", "c is about 300 s behind"]
