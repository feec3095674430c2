"""Seed of a range: what its next engine starts with, in one file that the host writes and the range's init reads.

It has the images that the range should have and whose layers it is shown: manifest, config, and where each layer is.
Before an engine's first start all of it is put into the engine's data, so that nothing starts on an empty engine.
`grants` are those of the layers, so that the range's agent can give back what is not used any more.
"""

from __future__ import annotations

import msgspec

from events.messages import Layer, LayerCodec

#: The only file in the seed's file system.
FILE_NAME = "seed.json"


class SeedLayer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One layer, base first: its folder's `name`, and its `parent`'s chain ID (none for the base)."""

    name: str
    diff_id: str
    chain_id: str
    digest: str
    size_bytes: int
    parent: str = ""
    codec: LayerCodec = "raw"


class SeedImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image. `reference` is in full, `name` and `tag` as an engine on the classic store keeps them.

    `repository` (`host:port/name`) is where the registry has it. Manifest and config are their exact bytes.
    """

    reference: str
    name: str
    tag: str
    image_id: str
    repository: str
    manifest_type: str
    manifest_digest: str
    manifest: bytes
    config: bytes
    layers: tuple[SeedLayer, ...]


class Seed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it, for an engine on this `store`."""

    store: str
    images: tuple[SeedImage, ...] = ()
    grants: dict[str, str] = {}

    def layers(self, image: SeedImage) -> tuple[Layer, ...]:
        """The layers of one of its images, as messages name them."""
        return tuple(
            Layer(digest=one.digest, diff_id=one.diff_id, size_bytes=one.size_bytes, codec=one.codec)
            for one in image.layers
        )
