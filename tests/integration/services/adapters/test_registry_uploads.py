"""Uploads to a real registry that do not end well: what they leave behind, and what is said."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from services.adapters.registry import HttpRegistry
from services.core.images.manifests import sha256
from services.errors import NoSpace, RegistryUnavailable, Stalled, TransferFailed, WrongContent
from tests.integration.agent.site import until
from tests.integration.engines import pieces
from tests.integration.faulty_registry import answering
from tests.laboratory import Lab, RegistryServer

pytestmark = pytest.mark.real
MEGABYTE = 1 << 20
NOWHERE = "sha256:" + "0" * 64


def unfinished(server: RegistryServer, repository: str) -> list[Path]:
    """Uploads whose data the registry still keeps. (registry:2 forgets a few bytes of state of cancelled ones.)"""
    folder = server.storage / "docker/registry/v2/repositories" / repository / "_uploads"
    return list(folder.rglob("data"))


async def test_a_source_that_fails_leaves_no_upload(registry_server: RegistryServer, unique: str) -> None:
    """Whether it fails before, at the beginning or in the middle: the session is cancelled."""

    async def failing(before: int) -> AsyncIterator[bytes]:
        for _ in range(before):
            yield os.urandom(MEGABYTE)
        raise TransferFailed("the source broke")

    async with HttpRegistry.open(registry_server.url) as registry:
        for before in (0, 1, 2, 9):
            with pytest.raises(TransferFailed, match="the source broke"):
                await registry.put_blob(unique, NOWHERE, None, failing(before))
            assert unfinished(registry_server, unique) == []


async def test_wrong_content_leaves_no_upload(registry_server: RegistryServer, unique: str) -> None:
    """The registry refused the digest, and keeps nothing of it."""
    async with HttpRegistry.open(registry_server.url) as registry:
        for size in (10, 3 * MEGABYTE):
            with pytest.raises(WrongContent):
                await registry.put_blob(unique, NOWHERE, size, pieces(os.urandom(size)))
            assert unfinished(registry_server, unique) == []


async def test_a_cancelled_upload_is_cancelled_at_the_registry(registry_server: RegistryServer, unique: str) -> None:
    """Cancelled while the source is silent: the session goes, and the connection can be used again."""
    silent = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield os.urandom(MEGABYTE)
        silent.set()
        await asyncio.Event().wait()

    async with HttpRegistry.open(registry_server.url) as registry:
        upload = asyncio.create_task(registry.put_blob(unique, NOWHERE, None, slow()))
        async with asyncio.timeout(10):
            await silent.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert unfinished(registry_server, unique) == []
        await registry.put_blob(unique, sha256(b"after"), 5, pieces(b"after"))
        assert await registry.blob_size(unique, sha256(b"after")) == 5


async def test_a_wrong_mount_hint_leaves_no_upload(registry_server: RegistryServer, unique: str) -> None:
    """The registry answers a mount that cannot be with an upload session; that is cancelled."""
    async with HttpRegistry.open(registry_server.url) as registry:
        assert not await registry.mount_blob(unique, NOWHERE, f"{unique}/other")
    assert unfinished(registry_server, unique) == []


async def test_a_registry_that_stands_still_is_noticed(lab: Lab, unique: str) -> None:
    """Frozen in the middle of an upload: Stalled, within the time allowed, and not a hang."""
    server = lab.registry(f"frozen-{unique}")

    async def freezing() -> AsyncIterator[bytes]:
        for number in range(200):
            if number == 3:
                server.pause()
            yield os.urandom(MEGABYTE)

    try:
        async with HttpRegistry.open(server.url, stall_seconds=0.5, answer_seconds=0.5) as registry:
            with pytest.raises(Stalled, match="stalled"):
                await registry.put_blob(unique, NOWHERE, None, freezing())
            with pytest.raises(RegistryUnavailable, match="does not answer"):
                await registry.ping()
            server.resume()
            await registry.ping()
    finally:
        server.stop()


async def test_a_stopped_registry_is_unavailable(lab: Lab, unique: str) -> None:
    """Every call says which registry, and to check that it runs."""
    server = lab.registry(f"stopped-{unique}")
    async with HttpRegistry.open(server.url) as registry:
        await registry.ping()
        server.stop()
        with pytest.raises(RegistryUnavailable, match="check that it runs"):
            await registry.ping()
        with pytest.raises(RegistryUnavailable):
            await registry.manifest(unique, "latest")
        with pytest.raises(RegistryUnavailable):
            await registry.put_blob(unique, NOWHERE, None, pieces(b"x"))
        server.start()
        try:
            await registry.ping()
        finally:
            server.stop()


async def test_a_full_disk_is_said_so(lab: Lab, unique: str) -> None:
    """The registry's answer tells of errno 28: NoSpace, with what to do."""
    storage = lab.folder / f"full-{unique}"
    storage.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(storage))
    assert await mount.wait() == 0
    server = lab.registry(f"full-registry-{unique}", storage=storage)
    try:
        async with HttpRegistry.open(server.url) as registry:
            content = os.urandom(8 * MEGABYTE)
            with pytest.raises(NoSpace, match="make room"):
                await registry.put_blob(unique, sha256(content), len(content), pieces(content))
    finally:
        server.stop()
        umount = await asyncio.create_subprocess_exec("umount", str(storage))
        await umount.wait()


async def test_a_read_only_registry_is_unavailable(lab: Lab, unique: str) -> None:
    """While it collects garbage it takes nothing: the push waits for it."""
    server = lab.registry(f"readonly-{unique}", readonly=True)
    try:
        async with HttpRegistry.open(server.url) as registry:
            with pytest.raises(RegistryUnavailable, match="read-only"):
                await registry.put_blob(unique, NOWHERE, None, pieces(b"x"))
    finally:
        server.stop()


async def test_a_session_whose_body_was_cut_is_lost(registry_server: RegistryServer, unique: str) -> None:
    """Why a broken upload starts over: the registry disowns the session, though it has the bytes."""

    async def some_arrived() -> bool:
        return any(file.stat().st_size for file in unfinished(registry_server, unique))

    async def cut() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield os.urandom(MEGABYTE)
        await until(some_arrived)
        raise ConnectionError("cut")

    async with aiohttp.ClientSession(registry_server.url) as session, asyncio.timeout(30):
        async with session.post(f"/v2/{unique}/blobs/uploads/") as begun:
            location = begun.headers["Location"]
        with pytest.raises(aiohttp.ClientError):
            await session.patch(location, data=cut())
        async with session.get(location) as asked:
            assert asked.status == 404
            assert "BLOB_UPLOAD_INVALID" in await asked.text()


async def test_a_manifest_without_end_is_not_read() -> None:
    """Somebody else's server that answers with more than a manifest can be costs no memory."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * MEGABYTE)
        return response

    async with answering(endless) as address, HttpRegistry.open(f"http://{address}", answer_seconds=20) as registry:
        with pytest.raises(TransferFailed, match="more than 4194304 bytes"):
            await registry.manifest("some/repository", "1")
