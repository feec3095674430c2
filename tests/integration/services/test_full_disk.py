"""An engine whose disk is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from services.adapters.build_context import open_context
from services.adapters.files import file_chunks
from services.errors import NoSpace
from services.ingest.archive_flow import Archive
from services.resources import open_resources
from services.settings import Settings
from tests.integration.services.conftest import Host
from tests.laboratory import EngineServer, Lab, RedisServer

DISK_BYTES = 40 * 1024 * 1024
TOO_MUCH = 60 * 1024 * 1024


@pytest.fixture(scope="module")
def small_engine(lab: Lab) -> Iterator[EngineServer]:
    """An engine on a disk of forty megabytes."""
    folder = lab.place("small")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        engine = lab.engine("small")
        try:
            yield engine
        finally:
            engine.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
async def small(small_engine: EngineServer, redis_server: RedisServer, key_prefix: str) -> AsyncIterator[Host]:
    """Composed over it."""
    settings = Settings(redis_url=redis_server.url, key_prefix=key_prefix, host_engine_url=small_engine.url)
    async with open_resources(settings) as resources:
        yield Host(resources, small_engine.url)


def _free(engine: EngineServer) -> int:
    disk = os.statvfs(engine.root)
    return disk.f_bavail * disk.f_frsize


async def test_a_build_that_does_not_fit_leaves_nothing(
    small: Host, small_engine: EngineServer, tmp_path: Path, unique: str
) -> None:
    """One clear error with a code, no image, no event. BuildKit keeps what it had as cache, and lets go of it after a
    restart of the engine, once there is a little room to write that down."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY big /big\n")
    (tmp_path / "big").write_bytes(os.urandom(TOO_MUCH))
    free = _free(small_engine)
    by_hand = small_engine.root / "made-room"
    by_hand.write_bytes(bytes(4_000_000))
    context = open_context(str(tmp_path))
    with pytest.raises(NoSpace, match="make room on its disk") as caught:
        await (await small.resources.build()).build(context.chunks(), reference=f"big-{unique}", origin="x")
    assert caught.value.failure().code == "no_space"
    assert small.all_images() == set()
    assert await small.said() == []
    by_hand.unlink()
    small_engine.stop()
    small_engine.start()

    def has_room() -> bool:
        small.docker("builder", "prune", "--all", "--force")
        return _free(small_engine) > free - 1_000_000

    assert poll(has_room, seconds=10, every=1.0)


async def test_an_import_that_does_not_fit_leaves_nothing(
    small: Host, host: Host, *, small_engine: EngineServer, tmp_path: Path, unique: str
) -> None:
    """The same for an archive that is whole but too large for the disk."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY big /big\n")
    (tmp_path / "big").write_bytes(os.urandom(TOO_MUCH))
    name = f"big-{unique}:1"
    host.docker("build", "-q", "-t", name, str(tmp_path))
    saved = tmp_path / "saved.tar"
    host.docker("save", "-o", str(saved), name)
    host.docker("rmi", name)
    free = _free(small_engine)
    with pytest.raises(NoSpace, match="make room on its disk"):
        await (await small.resources.importer()).import_archive(Archive(chunks=file_chunks(saved), origin="saved.tar"))
    assert small.all_images() == set()
    assert await small.said() == []
    assert _free(small_engine) > free - 1_000_000
