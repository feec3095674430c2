"""Image config read from the registry, bounded and verified: it lists the diff IDs, which the manifest does not."""

from __future__ import annotations

from services.core.images.manifests import CONFIG_LIMIT_BYTES, ImageConfig, Manifest, check_config_size, sha256
from services.errors import TransferFailed, WrongContent
from services.ports import Registry


async def registry_config(registry: Registry, repository: str, manifest: Manifest) -> ImageConfig:
    """The config that `manifest` names. Raises TransferFailed, WrongContent, BadInput, RegistryUnavailable."""
    wanted, content = manifest.body.config.digest, bytearray()
    check_config_size(manifest.body.config.size, repository)
    async with registry.open_blob(repository, wanted) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > CONFIG_LIMIT_BYTES:
                raise TransferFailed(f"the config {wanted} in {repository} is larger than {CONFIG_LIMIT_BYTES} bytes")
    if sha256(bytes(content)) != wanted:
        raise WrongContent(f"the registry's config {wanted} in {repository} has other content")
    return ImageConfig.parse(bytes(content))
