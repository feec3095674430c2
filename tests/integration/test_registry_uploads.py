"""What an upload leaves behind in the registry's storage when the registry refuses its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator

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
