"""How the tar server begins; what it serves is asked for in `exporting/test_exports.py` and `agent/test_loads.py`."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from events.memory.bus import MemoryBus
from events.task_group import TaskGroup
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.errors import BadInput
from services.runtime.http_server import HttpLimits
from services.tar_server.exports import Exports
from services.tar_server.image_reader import ImageReader
from services.tar_server.role import LIMITS, TarServer
from services.tar_server.spool import SpoolFolder


def _role(folder: Path, listen: str = "127.0.0.1:0", limits: HttpLimits = LIMITS) -> TarServer:
    exports = Exports(
        reader=ImageReader(engine=MemoryEngine(), sources=(), registry=MemoryRegistry()),
        folder=SpoolFolder(folder, limit_bytes=1 << 20),
        limit=1,
        linger_seconds=0,
    )
    return TarServer(bus=MemoryBus(), prefix="t", exports=exports, listen=listen, limits=limits)


async def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    """With the setting that chooses it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"cannot listen at 127.0.0.1:{port}: .*set CYROID_TAR_LISTEN"):
            await _role(tmp_path, f"127.0.0.1:{port}").run()


async def test_a_spool_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """With the setting that chooses it, and the path."""
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file/spools: Not a directory; set CYROID_SPOOL_FOLDER"):
        await _role(tmp_path / "file" / "spools").run()


async def _status(port: int, *, of: str, sent: bytes) -> int | None:
    """The answer's status, read until the server ends the connection; None for one that it ended without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(of, 0))
    writer.write(sent)
    try:
        said = await reader.read()
    except ConnectionError:
        return None
    finally:
        writer.close()
    return int(said.split()[1]) if said else None


async def test_half_requests_end_nobody(tmp_path: Path) -> None:
    """Heads that never end and connections that say nothing are closed; one client has a few; others are answered
    meanwhile, without a proxy in front."""
    limits = HttpLimits(head_seconds=0.3, idle_seconds=2.0, connections=40, connections_per_client=20)
    role = _role(tmp_path, limits=limits)
    async with TaskGroup() as group:
        running = group.create_task(role.run())
        port = int((await role.address()).rpartition(":")[2])
        half = b"GET /transfers/t HTTP/1.1\r\nHost: tar\r\nX-"
        slow = [group.create_task(_status(port, of="127.0.0.2", sent=half)) for _ in range(200)]
        silent = [group.create_task(_status(port, of="127.0.0.3", sent=b"")) for _ in range(10)]
        whole = b"GET /transfers/t HTTP/1.1\r\nHost: tar\r\nConnection: close\r\n\r\n"
        assert await _status(port, of="127.0.0.4", sent=whole) == 401
        ends = [await one for one in slow]
        assert {await one for one in silent} <= {None, 503}
        assert await _status(port, of="127.0.0.2", sent=whole) == 401
        running.cancel()
    assert set(ends) <= {408, 503, None}  # a connection that is refused may break off before the answer is read
    assert 408 in ends
    assert 503 in ends
