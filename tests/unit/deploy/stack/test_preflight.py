"""What stops the stack from starting is said before it starts."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.stack.preflight import bad_folder, old_engine, overlaps, taken_ports


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("version", "lines"), [("19.03.15", 1), ("20.10.24+dfsg1", 0), ("28.5.2", 0), ("0", 1)])
def test_an_engine_that_is_too_old_is_named(version: str, lines: int) -> None:
    """20.10 is the oldest that is tested."""
    assert len(list(old_engine(version))) == lines


def test_a_taken_port_is_named_with_the_setting_that_moves_it() -> None:
    """Somebody listens there already."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (line,) = taken_ports({"STACK_API_PORT": port})
        assert f"port {port}" in line
        assert "STACK_API_PORT" in line
    assert list(taken_ports({"STACK_API_PORT": port})) == []


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    """A file in the way of the data folder."""
    (tmp_path / "file").write_text("")
    (line,) = bad_folder(tmp_path / "file" / "data")
    assert "CYROID_DATA_DIR" in line


def test_a_disk_nearly_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than the least that is useful."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 99, 1))
    (line,) = bad_folder(tmp_path / "not" / "yet")
    assert "GB left" in line


def test_a_network_in_the_way_is_named() -> None:
    """Another network of the engine on our addresses; one elsewhere, or of IPv6, is no obstacle."""
    found = list(overlaps({"other": "172.30.0.0/16", "elsewhere": "10.0.0.0/8", "six": "fd00::/64"}))
    assert len(found) == 2
    assert all("other" in line for line in found)
