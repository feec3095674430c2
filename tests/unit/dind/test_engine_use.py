"""Whether somebody uses an engine: connections of real clients, and what work leaves on disk."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DIND = Path(__file__).parents[3] / "dind"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(DIND))
    import engine_use

    yield engine_use
    del sys.modules["engine_use"]


def test_clients_of_a_socket_and_a_port_are_counted(use: ModuleType, tmp_path: Path) -> None:
    """Each once, as long as it is connected; listening alone is nobody."""
    path = str(tmp_path / "docker.sock")
    with socket.socket(socket.AF_UNIX) as local, socket.create_server(("127.0.0.1", 0)) as remote:
        local.bind(path)
        local.listen()
        sockets = [path, str(remote.getsockname()[1])]
        assert use.clients(sockets, os.getpid()) == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            accepted, _ = local.accept()
            assert use.clients(sockets, os.getpid()) == 1
        with accepted:  # which an engine may keep though its client has gone
            assert use.clients(sockets, os.getpid()) == 0
            with socket.create_connection(remote.getsockname()), remote.accept()[0]:
                assert use.clients(sockets, os.getpid()) == 1
        assert use.clients([path], os.getpid()) == 0


@pytest.mark.parametrize(
    "path",
    ["tmp/GetImageBlob1", "tmp/docker-import-2", "tmp/docker-builder3", "image/overlay2/layerdb/tmp/write-set-4"],
)
def test_work_under_way_is_seen_on_disk(use: ModuleType, tmp_path: Path, path: str) -> None:
    """A pull, a load, a build, a layer that is written; not what an engine that was killed left long ago."""
    assert use.work(tmp_path) == []
    (tmp_path / path).mkdir(parents=True)
    assert use.work(tmp_path) == [path]
    long_ago = time.time() - 7200
    os.utime(tmp_path / path, (long_ago, long_ago))
    assert use.work(tmp_path) == []
