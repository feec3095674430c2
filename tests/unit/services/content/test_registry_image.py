"""What a reference in the registry means for a platform."""

from __future__ import annotations

import msgspec
import pytest

from services.adapters.memory_registry import MemoryRegistry
from services.content.registry_image import manifest_of_config, platform_manifest
from services.core.images.manifests import OCI_CONFIG, OCI_INDEX, OCI_LAYER, Descriptor, Manifest, sha256
from services.errors import NotAnImage
from tests.images import config_of
from tests.unit.services.twins import chunks


async def put(registry: MemoryRegistry, architecture: str, *, urls: tuple[str, ...] = ()) -> Manifest:
    """An image of one layer for that architecture; a layer with `urls` is not in the registry."""
    layer = architecture.encode() * 100
    config = config_of([sha256(layer)], architecture=architecture)
    for content in (config, *(() if urls else (layer,))):
        await registry.put_blob("a", sha256(content), len(content), chunks(content))
    manifest = Manifest.write(
        Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config)),
        (Descriptor(media_type=OCI_LAYER, digest=sha256(layer), size=len(layer), urls=urls),),
    )
    await registry.put_manifest("a", architecture, manifest)
    return manifest


@pytest.fixture
async def registry() -> MemoryRegistry:
    """An index of two platforms under `idx`."""
    registry = MemoryRegistry()
    named = []
    for architecture in ("arm64", "amd64"):
        manifest = await put(registry, architecture)
        plain = msgspec.to_builtins(manifest.descriptor)
        named.append({**plain, "platform": {"os": "linux", "architecture": architecture}})
    content = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named})
    registry.foreign["a", "idx"] = content
    return registry


async def test_an_index_is_the_image_of_the_platform(registry: MemoryRegistry) -> None:
    """And a tag of one image is that image, whatever the platform."""
    found = await platform_manifest(registry, "a", "idx", "linux/arm64")
    assert found is not None
    assert found == await registry.manifest("a", "arm64")
    assert await platform_manifest(registry, "a", "amd64", "linux/arm64") == await registry.manifest("a", "amd64")
    assert await platform_manifest(registry, "a", "never", None) is None
    with pytest.raises(NotAnImage, match="linux/s390x"):
        await platform_manifest(registry, "a", "idx", "linux/s390x")


async def test_an_image_of_an_index_is_found_by_its_config(registry: MemoryRegistry) -> None:
    """As the tar server asks for one."""
    arm = await registry.manifest("a", "arm64")
    assert arm is not None
    found = await manifest_of_config(registry, "a", "idx", arm[1].body.config.digest)
    assert found == arm[1]
    assert await manifest_of_config(registry, "a", "idx", "sha256:0") is None


async def test_layers_that_are_elsewhere_are_one_clear_reason() -> None:
    """A range would ask the internet for them."""
    registry = MemoryRegistry()
    await put(registry, "amd64", urls=("https://example.com/layer",))
    with pytest.raises(NotAnImage, match="allow-nondistributable-artifacts"):
        await platform_manifest(registry, "a", "amd64", "linux/amd64")
