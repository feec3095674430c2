"""What an upload leaves behind in the registry's storage when the registry refuses its content."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest

from services.adapters.registry import HttpRegistry
from services.errors import WrongContent
from tests.laboratory import RegistryServer

pytestmark = pytest.mark.real


async def test_refused_content_does_not_stay(registry_server: RegistryServer, unique: str) -> None:
    """The registry keeps what it refuses until the session is cancelled, which is done at once."""
    size_bytes = 3 << 20

    async def other() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield os.urandom(1 << 20)

    async with HttpRegistry.open(registry_server.url) as registry:
        with pytest.raises(WrongContent, match="DIGEST_INVALID"):
            await registry.put_blob(unique, f"sha256:{hashlib.sha256(b'wanted').hexdigest()}", size_bytes, other())
    uploads = registry_server.storage / "docker/registry/v2/repositories" / unique / "_uploads"
    assert uploads.exists()
    assert [path for path in uploads.rglob("data") if path.is_file()] == []


async def test_an_upload_in_pieces_cannot_be_resumed_either(registry_server: RegistryServer, unique: str) -> None:
    """Why a half-sent blob begins again: after a cut within a piece the registry refuses the whole session, with the
    pieces that it had acknowledged."""
    octets = {"Content-Type": "application/octet-stream"}

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        await asyncio.sleep(0.1)  # the megabyte is on its way
        raise ConnectionError

    async with aiohttp.ClientSession(registry_server.url) as client:
        begun = await client.post(f"/v2/{unique}/blobs/uploads/")
        acknowledged = await client.patch(begun.headers["Location"], data=bytes(1 << 20), headers=octets)
        assert (acknowledged.status, acknowledged.headers["Range"]) == (202, f"0-{(1 << 20) - 1}")
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await client.patch(acknowledged.headers["Location"], data=broken(), headers=octets)
        uploads = registry_server.storage / "docker/registry/v2/repositories" / unique / "_uploads"
        async with asyncio.timeout(20):
            while sum(path.stat().st_size for path in uploads.glob("*/data")) <= 1 << 20:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.05)
        again = await client.patch(acknowledged.headers["Location"], data=bytes(1 << 20), headers=octets)
        assert again.status in (400, 404)
        assert "BLOB_UPLOAD_INVALID" in await again.text()
