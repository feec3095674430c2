"""The host's engine: one line for each way in which it is not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.stack.host_engine import engine_process, engine_socket


def said(address: str) -> str:
    with pytest.raises(MachineError) as told:
        engine_socket({"DOCKER_HOST": address})
    assert "\n" not in str(told.value)
    return str(told.value)


def test_no_engine_is_one_line(tmp_path: Path) -> None:
    """No socket, a socket at which nobody listens any more, and an engine on another host."""
    assert "install and start Docker" in said(f"unix://{tmp_path}/none")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    assert said(f"unix://{tmp_path}/left").endswith("start it")
    assert "on its own host" in said("tcp://192.0.2.1:2375")


@pytest.mark.parametrize(
    ("mode", "gid", "advice"),
    [(0o660, 998, "join its group 998"), (0o600, 998, "run this as root"), (0o660, 0, "run this as root")],
)
def test_no_rights_on_the_socket_is_one_line(
    mode: int, gid: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the group to join, if joining it helps."""
    path = tmp_path / "s"
    with socket.create_server(str(path), family=socket.AF_UNIX):
        about = os.stat_result((0o140000 | mode, 0, 0, 1, 0, gid, 0, 0, 0, 0))

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(Path, "stat", lambda *_, **__: about)
        text = said(f"unix://{path}")
    assert text.startswith(f"no rights on the engine's socket {path}")
    assert advice in text
    assert ("group" in text) == ("group" in advice)


def test_the_process_behind_the_socket_is_known(tmp_path: Path) -> None:
    """Whose network the published ports are in."""
    path = tmp_path / "s"
    with socket.create_server(str(path), family=socket.AF_UNIX):
        assert engine_socket({"DOCKER_HOST": f"unix://{path}"}) == path
        assert engine_process(path) == os.getpid()
