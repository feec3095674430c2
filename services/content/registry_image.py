"""Resolution of a reference in the registry to the image of one platform: indexes are followed, artifacts refused."""

from __future__ import annotations

from events.messages import Layer
from services.core.images.encodings import codec_of
from services.core.images.indexes import Index
from services.core.images.manifests import Descriptor, ImageConfig, Manifest
from services.errors import BadInput, NotAnImage
from services.ports import Registry

#: An index may name indexes.
_DEPTH = 3
_MANIFESTS_LIMIT = 64


async def platform_manifest(
    registry: Registry, repository: str, reference: str, platform: str | None
) -> tuple[Descriptor, Manifest] | None:
    """The manifest under a tag or digest; of an index, that for `platform`. None if it is not there.

    Raises NotAnImage with the reason for one that no engine could run, Unavailable, BadInput.
    """
    for _ in range(_DEPTH):
        try:
            found = await registry.manifest(repository, reference)
        except NotAnImage as problem:
            index = Index.parse(problem.content)
            if index is None:
                raise
            try:
                reference = index.choose(platform).digest
            except NotAnImage as none:
                raise NotAnImage(f"{repository}:{reference} in the registry {none}", problem.content) from problem
            continue
        if found is not None:
            await _check_foreign_layers(registry, repository, found[1])
        return found
    raise NotAnImage(f"{repository} in the registry has indexes of indexes of indexes there")


async def manifest_of_config(registry: Registry, repository: str, reference: str, image_id: str) -> Manifest | None:
    """The manifest under a tag, or in the index there, whose config is `image_id`. Raises BadInput for artifacts."""
    try:
        found = await registry.manifest(repository, reference)
        candidates = [found[1]] if found is not None else []
    except NotAnImage as problem:
        index = Index.parse(problem.content)
        if index is None:
            raise
        candidates = []
        for entry in index.images[:_MANIFESTS_LIMIT]:
            named = await registry.manifest(repository, entry.digest)
            candidates += [named[1]] if named is not None else []
    return next((manifest for manifest in candidates if manifest.body.config.digest == image_id), None)


def layers_of(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    """The layers as blobs and by their diff IDs. Raises BadInput where manifest and config do not agree."""
    diff_ids, blobs = config.rootfs.diff_ids, manifest.body.layers
    if len(diff_ids) != len(blobs):
        raise BadInput(f"the manifest {manifest.digest} names {len(blobs)} layers, its config {len(diff_ids)}")
    return tuple(
        Layer(digest=blob.digest, diff_id=diff_id, size_bytes=blob.size, codec=codec_of(blob.media_type))
        for blob, diff_id in zip(blobs, diff_ids, strict=True)
    )


async def _check_foreign_layers(registry: Registry, repository: str, manifest: Manifest) -> None:
    """Layers with `urls` are somewhere else, unless somebody put them into the registry as well."""
    outside = [layer.digest for layer in manifest.body.layers if layer.urls]
    lost = [digest for digest in outside if await registry.blob_size(repository, digest) is None]
    if lost:
        raise NotAnImage(
            f"an image of {repository} in the registry has layers elsewhere ({', '.join(lost)}): push it with"
            " `allow-nondistributable-artifacts`"
        )
