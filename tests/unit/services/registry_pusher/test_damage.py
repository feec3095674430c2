"""A blob in the registry that is not what it should be."""

import pytest

from services.adapters.memory_registry import MemoryRegistry
from services.core.images.manifests import sha256
from services.errors import BlobDamaged
from services.registry_pusher.damage import BlobSizes
from tests.unit.services.twins import chunks

CONTENT = b"x" * 100
DIGEST = sha256(CONTENT)


@pytest.fixture
async def registry() -> MemoryRegistry:
    found = MemoryRegistry()
    await found.put_blob("web", DIGEST, len(CONTENT), chunks(CONTENT))
    return found


async def test_a_blob_of_its_size_is_not_read(registry: MemoryRegistry) -> None:
    """Nor one whose size nobody can tell."""
    registry.cut(DIGEST)
    sizes = BlobSizes(registry)
    assert await sizes.agrees("web", DIGEST, 50, 50)
    assert await sizes.agrees("web", DIGEST, 50, None)


async def test_a_blob_that_was_cut_is_reported(registry: MemoryRegistry) -> None:
    """It is damaged for whoever asks; another try finds it set aside."""
    registry.cut(DIGEST)
    reported: list[str] = []

    async def report(digest: str) -> None:
        reported.append(digest)

    with pytest.raises(BlobDamaged, match="50 bytes, not 100") as raised:
        await BlobSizes(registry, report).agrees("web", DIGEST, 50, 100)
    assert reported == [DIGEST]
    assert raised.value.retryable


async def test_sound_content_of_another_size_is_no_damage(registry: MemoryRegistry) -> None:
    """What was expected of it is wrong then."""
    assert not await BlobSizes(registry).agrees("web", DIGEST, 100, 50)
