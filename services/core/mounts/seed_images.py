"""Making of a seed (`services.core.mounts.seeds`): which images of a range are in it, from the registry's content."""

from __future__ import annotations

from collections.abc import Iterable

from events.messages import Layer
from services.core.images.encodings import codec_of
from services.core.images.manifests import ImageConfig, Manifest, sha256
from services.core.images.references import Reference
from services.core.mounts.layer_mounts import layer_mounts, unmountable
from services.core.mounts.records import SeededImage, ShownLayers
from services.core.mounts.seeds import Seed, SeedImage, SeedLayer
from services.core.ranges.ranges import DesiredImage
from services.errors import BadInput


def seed_image(wanted: DesiredImage, manifest: Manifest, config: bytes, shown: ShownLayers) -> SeedImage:
    """The image for a seed. Raises BadInput where the content is another one, or not all its layers are shown."""
    reference = Reference.parse(wanted.reference)
    if reference.tag is None or reference.digest is not None:
        raise BadInput(f"{wanted.reference} is no name with a tag alone")
    found, parent = list[SeedLayer](), ""
    for mount in layer_mounts(_layers(wanted, manifest, config)):
        view = shown.layers.get(mount.name)
        if view is None or view.layer != mount.layer:
            raise BadInput(f"range {shown.range_id} is not shown {mount.name}")
        found.append(
            SeedLayer(
                name=mount.name,
                diff_id=mount.layer.diff_id,
                chain_id=mount.chain_id,
                digest=mount.layer.digest,
                size_bytes=mount.layer.size_bytes,
                parent=parent,
                codec=mount.layer.codec,
            )
        )
        parent = mount.chain_id
    return SeedImage(
        reference=wanted.reference,
        name=reference.familiar.removesuffix(f":{reference.tag}"),
        tag=reference.tag,
        image_id=wanted.image_id,
        repository=(wanted.source or "").rpartition("@")[0],
        manifest_type=manifest.body.media_type,
        manifest_digest=manifest.digest,
        manifest=manifest.content,
        config=config,
        layers=tuple(found),
    )


def _layers(wanted: DesiredImage, manifest: Manifest, config: bytes) -> tuple[Layer, ...]:
    """The image's layers, base first. Raises BadInput."""
    blobs, config_digest = manifest.body.layers, sha256(config)
    known = (manifest.digest, manifest.body.config.digest, wanted.image_id)
    if known != ((wanted.source or "").rpartition("@")[2], config_digest, config_digest):
        raise BadInput(f"this is not the content of {wanted.reference}")
    diff_ids = ImageConfig.parse(config).rootfs.diff_ids
    if len(diff_ids) != len(blobs):
        raise BadInput(f"manifest and config of {wanted.reference} have different layers")
    layers = tuple(
        Layer(digest=blob.digest, diff_id=diff_id, size_bytes=blob.size, codec=codec_of(blob.media_type))
        for blob, diff_id in zip(blobs, diff_ids, strict=True)
    )
    why = unmountable(layers)
    if why is not None:
        raise BadInput(why)
    return layers


def seed_of(images: Iterable[SeedImage], shown: ShownLayers) -> Seed | None:
    """The seed of a range that is shown these layers; None where it would be empty, or for two kinds of stores."""
    found = tuple(sorted(images, key=lambda image: image.reference))
    names = sorted({layer.name for image in found for layer in image.layers})
    stores = {shown.layers[name].store for name in names}
    if len(stores) != 1:
        return None
    return Seed(store=stores.pop(), images=found, grants={name: shown.layers[name].grant for name in names})


def seeded_by(seed: Seed, wanted: Iterable[DesiredImage]) -> tuple[SeededImage, ...]:
    """What the host remembers of a seed."""
    layers = {image.reference: tuple(layer.name for layer in image.layers) for image in seed.images}
    return tuple(
        SeededImage(image=one, layers=layers[one.reference])
        for one in sorted(wanted, key=lambda one: one.reference)
        if one.reference in layers
    )
