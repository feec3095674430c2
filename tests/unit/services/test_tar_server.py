"""How the tar server begins; what it serves is asked for in `exporting/test_exports.py` and `agent/test_loads.py`."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from events.memory import MemoryBus
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.errors import BadInput
from services.exporting.exports import Exports
from services.exporting.image_reader import ImageReader
from services.exporting.spool import SpoolFolder
from services.tar_server import TarServer


def _role(folder: Path, listen: str = "127.0.0.1:0") -> TarServer:
    exports = Exports(
        reader=ImageReader(engine=MemoryEngine(), sources=(), registry=MemoryRegistry()),
        folder=SpoolFolder(folder, limit_bytes=1 << 20),
        limit=1,
        linger_seconds=0,
    )
    return TarServer(speaker=MemoryBus(), prefix="t", exports=exports, listen=listen)


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
