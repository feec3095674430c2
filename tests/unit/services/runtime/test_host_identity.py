"""Where a host's id comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.errors import BadInput, EngineUnavailable
from services.runtime.host_identity import FILE, HostIdentity


def identity(engine: MemoryEngine, *, chosen: str = "", folder: str = "") -> HostIdentity:
    async def opened() -> MemoryEngine:
        return engine

    return HostIdentity(chosen=chosen, folder=folder, engine=opened)


async def test_the_setting_comes_first_then_the_file_then_the_engine(tmp_path: Path) -> None:
    """The engine's id is kept, so that it stays when the engine is made anew."""
    data = tmp_path / "data"
    engine = MemoryEngine(engine_id="AAAA:BBBB")
    first = identity(engine, folder=str(data))
    assert first.known is None
    assert await first.get() == first.known == "AAAA-BBBB"
    other = MemoryEngine(engine_id="other")
    assert identity(other, folder=str(data)).known == "AAAA-BBBB"
    assert await identity(other, chosen="named", folder=str(data)).get() == "named"
    assert [file.name for file in data.iterdir()] == [FILE]


async def test_an_engine_that_is_away_is_asked_again() -> None:
    """Nothing is made up meanwhile."""
    engine = MemoryEngine(engine_id="one")
    found = identity(engine)
    engine.away = True
    with pytest.raises(EngineUnavailable):
        await found.get()
    engine.away = False
    assert await found.get() == "one"


async def test_what_cannot_be_an_id_is_said(tmp_path: Path) -> None:
    """In the file, or of the engine; a folder that cannot be written is no obstacle."""
    (tmp_path / FILE).write_text("two words\n")
    with pytest.raises(BadInput, match="holds no host id"):
        identity(MemoryEngine(), folder=str(tmp_path))
    with pytest.raises(BadInput, match="CYROID_HOST_ID"):
        await identity(MemoryEngine(engine_id="two words")).get()
    (tmp_path / "file").write_text("")
    assert await identity(MemoryEngine(engine_id="one"), folder=str(tmp_path / "file" / "data")).get() == "one"
