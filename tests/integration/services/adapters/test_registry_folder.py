"""Blobs written into the storage folder of a real registry: that it sees them, and what a bad end leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.adapters.chunk_streams import from_thread
from services.adapters.registry import HttpRegistry
from services.adapters.registry_folder import RegistryFolder
from services.collector.layout import RegistryLayout
from services.collector.uploads import ABANDONED_SECONDS, purge_uploads
from services.core.images.manifests import sha256
from services.errors import LayerUnreadable, NoSpace, Stalled, TransferFailed, WrongContent
from tests.integration.engines import pieces
from tests.laboratory import ROOT, Lab, RegistryServer

pytestmark = pytest.mark.real
MEGABYTE = 1 << 20
V2 = "docker/registry/v2"


def left(server: RegistryServer, repository: str) -> list[Path]:
    """Uploads that are not ended."""
    return list((server.storage / V2 / "repositories" / repository).glob("_uploads/*"))


def blob(server: RegistryServer, digest: str) -> Path:
    digits = digest.removeprefix("sha256:")
    return server.storage / V2 / "blobs/sha256" / digits[:2] / digits / "data"


async def whole(registry: HttpRegistry, repository: str, digest: str) -> bytes:
    async with registry.open_blob(repository, digest) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_large_blob_is_written_and_not_sent(lab: Lab, unique: str) -> None:
    """A registry with a cache of descriptors, which was asked for it before, has it at once; a small one is sent."""
    server = lab.registry(f"cached-{unique}", cache=True)
    try:
        content = os.urandom(3 * MEGABYTE + 7)
        digest = sha256(content)
        async with HttpRegistry.open(server.url, storage=server.storage) as registry:
            assert await registry.blob_size(unique, digest) is None
            await registry.put_blob(unique, digest, len(content), pieces(content))
            assert await whole(registry, unique, digest) == content
            await registry.put_blob(unique, sha256(b"small"), 5, pieces(b"small"))
        assert [one.method for one in server.requests() if one.method in {"PATCH", "PUT"}] == ["PUT"]
        assert left(server, unique) == []
        assert blob(server, digest).stat().st_nlink == 1
    finally:
        server.stop()


async def test_the_thread_that_reads_a_blob_writes_it(registry_server: RegistryServer, unique: str) -> None:
    """Whole and checked; wrong bytes and a reader that breaks leave nothing; so does a caller that leaves."""
    content = os.urandom(5 * MEGABYTE + 7)
    digest = sha256(content)
    parts = [content[at : at + MEGABYTE] for at in range(0, len(content), MEGABYTE)]
    reached = threading.Event()

    def broken() -> Iterator[bytes]:
        yield parts[0]
        raise LayerUnreadable("the reader broke")

    def endless() -> Iterator[bytes]:
        while True:
            reached.set()
            yield b"more"

    async with HttpRegistry.open(registry_server.url, storage=registry_server.storage) as registry:

        async def put(read: Callable[[], Iterator[bytes]]) -> None:
            async with from_thread(read) as chunks:
                await registry.put_blob(unique, digest, len(content), chunks)

        for read, error in ((lambda: iter(parts[1:]), WrongContent), (broken, LayerUnreadable)):
            with pytest.raises(error):
                await put(read)
        leaving = asyncio.create_task(put(endless))
        await asyncio.to_thread(reached.wait, 30)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert left(registry_server, unique) == []
        assert not blob(registry_server, digest).exists()
        await put(lambda: iter(parts))
        assert await whole(registry, unique, digest) == content
    assert left(registry_server, unique) == []
    assert blob(registry_server, digest).stat().st_nlink == 1


async def test_a_reader_that_gives_nothing_is_given_up(registry_server: RegistryServer, unique: str) -> None:
    """After as long as a write may take."""
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        yield os.urandom(MEGABYTE)
        never.wait(30)

    async def put(registry: HttpRegistry) -> None:
        async with from_thread(silent) as chunks:
            try:
                await registry.put_blob(unique, sha256(b"never"), 2 * MEGABYTE, chunks)
            finally:
                never.set()

    async with HttpRegistry.open(registry_server.url, storage=registry_server.storage, stall_seconds=0.5) as registry:
        with pytest.raises(Stalled, match="nothing came"):
            await put(registry)
    assert left(registry_server, unique) == []


async def test_another_registrys_folder_is_left_alone(
    registry_server: RegistryServer, unique: str, tmp_path: Path
) -> None:
    """The upload goes on over HTTP, this one and all later ones."""
    async with HttpRegistry.open(registry_server.url, storage=tmp_path) as registry:
        for size in (2, 3):
            content = os.urandom(size * MEGABYTE)
            await registry.put_blob(unique, sha256(content), None, pieces(content))
            assert await registry.blob_size(unique, sha256(content)) == len(content)
    assert list(tmp_path.iterdir()) == []
    assert left(registry_server, unique) == []


async def test_a_bad_source_leaves_nothing(registry_server: RegistryServer, unique: str) -> None:
    """Wrong bytes, too few, a source that breaks, a caller that leaves: no blob, and no upload."""

    async def broken() -> AsyncIterator[bytes]:
        yield os.urandom(MEGABYTE)
        raise TransferFailed("the source broke")

    async def silent() -> AsyncIterator[bytes]:
        yield os.urandom(MEGABYTE)
        reached.set()
        await asyncio.Event().wait()

    reached, content = asyncio.Event(), os.urandom(2 * MEGABYTE)
    async with HttpRegistry.open(registry_server.url, storage=registry_server.storage) as registry:
        for chunks, size, error in (
            (pieces(os.urandom(2 * MEGABYTE)), len(content), WrongContent),
            (pieces(content[:-1]), len(content), WrongContent),
            (broken(), None, TransferFailed),
        ):
            with pytest.raises(error):
                await registry.put_blob(unique, sha256(content), size, chunks)
        leaving = asyncio.create_task(registry.put_blob(unique, sha256(content), None, silent()))
        await reached.wait()
        leaving.cancel()
        await asyncio.wait({leaving})
        assert await registry.blob_size(unique, sha256(content)) is None
    assert left(registry_server, unique) == []
    assert not blob(registry_server, sha256(content)).exists()


async def test_two_write_one_blob_at_once(registry_server: RegistryServer, unique: str) -> None:
    """One by the folder, one over HTTP: nothing is replaced, and both are told that it is there."""
    content = os.urandom(6 * MEGABYTE)
    digest = sha256(content)
    async with (
        HttpRegistry.open(registry_server.url, storage=registry_server.storage) as written,
        HttpRegistry.open(registry_server.url) as sent,
    ):
        await asyncio.gather(
            *(
                one.put_blob(f"{unique}/{name}", digest, len(content), pieces(content))
                for name, one in (("a", written), ("b", sent), ("c", written), ("a", sent))
            )
        )
        before = blob(registry_server, digest).stat().st_ino
        await written.put_blob(f"{unique}/d", digest, len(content), pieces(content))
        assert blob(registry_server, digest).stat().st_ino == before
        for name in "abcd":
            assert await whole(sent, f"{unique}/{name}", digest) == content
            assert left(registry_server, f"{unique}/{name}") == []


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from services.adapters.registry import HttpRegistry
url, storage, repository, digest, path, step = sys.argv[1:]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def then(call): return lambda *words, **named: (call(*words, **named), die())
async def chunks():
    yield Path(path).read_bytes()[: 2 << 20]
    if step == "writing": die()
    yield Path(path).read_bytes()[2 << 20 :]
if step == "linked": os.link = then(os.link)
if step == "visible": Path.rename = then(Path.rename)
async def main():
    async with HttpRegistry.open(url, storage=Path(storage)) as registry:
        await registry.put_blob(repository, digest, None, chunks())
asyncio.run(main())
"""


@pytest.mark.parametrize("step", ["writing", "linked", "visible"])
async def test_a_kill_at_any_step_leaves_an_upload_that_is_purged(
    registry_server: RegistryServer, unique: str, tmp_path: Path, step: str
) -> None:
    """Nothing half is ever visible, and the next push of it works."""
    content = os.urandom(4 * MEGABYTE)
    digest, file = sha256(content), tmp_path / "content"
    file.write_bytes(content)
    words = [registry_server.url, str(registry_server.storage), unique, digest, str(file), step]
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _KILLED, *words], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    async with HttpRegistry.open(registry_server.url, storage=registry_server.storage) as registry:
        assert await registry.blob_size(unique, digest) == (len(content) if step == "visible" else None)
        await registry.put_blob(unique, digest, len(content), pieces(content))
        assert await whole(registry, unique, digest) == content
    assert len(left(registry_server, unique)) == 1
    layout = RegistryLayout(registry_server.storage)
    await asyncio.to_thread(purge_uploads, layout, now=time.time() + ABANDONED_SECONDS + 1)
    assert left(registry_server, unique) == []
    assert blob(registry_server, digest).read_bytes() == content


async def test_a_full_disk_is_told_and_holds_nothing(lab: Lab, unique: str, tmp_path: Path) -> None:
    """Its upload is gone at once, so there is room again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    server = lab.registry(f"full-{unique}", storage=disk)
    try:
        async with HttpRegistry.open(server.url, storage=disk) as registry:
            content = os.urandom(20 * MEGABYTE)
            with pytest.raises(NoSpace):
                await registry.put_blob(unique, sha256(content), len(content), pieces(content))
            assert left(server, unique) == []
            content = content[: 5 * MEGABYTE]
            await registry.put_blob(unique, sha256(content), len(content), pieces(content))
            assert blob(server, sha256(content)).read_bytes() == content
    finally:
        server.stop()
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


async def test_files_belong_to_the_user_of_the_registry(open_folder: Path, tmp_path: Path) -> None:
    """So it can change and remove them; the process's own rights are as before."""
    session = open_folder / V2 / "repositories/web/_uploads/1-2"
    session.mkdir(parents=True)
    for path in (session, *session.parents[:7]):
        os.chown(path, 12345, 23456)
    folder = RegistryFolder(open_folder)
    file = await folder.session("web", "1-2")
    assert file is not None
    content = os.urandom(2 * MEGABYTE)
    digest = await folder.write(file, "web", sha256(content), size_bytes=None, chunks=pieces(content))
    folder.close()
    made = list((open_folder / V2).rglob("*"))
    assert {path.name for path in made} >= {"data", "link", digest.removeprefix("sha256:")}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 23456)}
    file.close()
    file.remove()
    assert not session.exists()
    own = tmp_path / "own"
    own.touch()
    assert own.stat().st_uid == os.geteuid()


async def test_a_disk_of_zeros_takes_no_room(registry_server: RegistryServer, unique: str) -> None:
    """The registry serves it whole: in the beginning, in the middle and at the end."""
    content = os.urandom(MEGABYTE) + bytes(5 * MEGABYTE + 3) + os.urandom(512) + bytes(10 * MEGABYTE)
    digest = sha256(content)
    async with HttpRegistry.open(registry_server.url, storage=registry_server.storage) as registry:
        await registry.put_blob(unique, digest, len(content), pieces(content))
        assert await whole(registry, unique, digest) == content
    status = blob(registry_server, digest).stat()
    assert status.st_size == len(content)
    assert status.st_blocks * 512 < 2 * MEGABYTE
