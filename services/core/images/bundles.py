"""Bundles: images of the registry as one OCI layout in a tar, for hosts without a network.

    oci-layout                   the version of the layout
    blobs/sha256/<hex>           configs, layers and manifests, each once
    index.json                   the images: a descriptor each, with the full reference as its annotation

A bundle that was made `--since` a list of digests leaves out what is on it; whoever loads it has that already.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from events.malformed import MALFORMED
from events.messages import END
from services.core.images.manifests import OCI_INDEX, Descriptor
from services.errors import BadArchive

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGES_LIMIT = 10_000


class BundledImage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image in the index: its manifest's descriptor, and the reference that it is loaded under."""

    media_type: str
    digest: Annotated[str, Meta(pattern=rf"^sha256:[0-9a-f]{{64}}{END}")]
    size: Annotated[int, Meta(ge=0)]
    annotations: dict[str, str] = {}

    @classmethod
    def of(cls, manifest: Descriptor, reference: str) -> BundledImage:
        return cls(
            media_type=manifest.media_type,
            digest=manifest.digest,
            size=manifest.size,
            annotations={REF_NAME: reference},
        )

    def named_for_containerd(self, reference: str) -> BundledImage:
        """With the name that an engine on containerd's store gives it when it is loaded."""
        return msgspec.structs.replace(self, annotations={**self.annotations, CONTAINERD_NAME: reference})

    @property
    def reference(self) -> str:
        """Raises BadArchive for an image without one."""
        if not self.annotations.get(REF_NAME):
            raise BadArchive(f"the image {self.digest} in the bundle has no name ({REF_NAME})")
        return self.annotations[REF_NAME]


class BundleIndex(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`index.json`."""

    schema_version: int = 2
    media_type: str = OCI_INDEX
    manifests: Annotated[tuple[BundledImage, ...], Meta(max_length=IMAGES_LIMIT)] = ()

    @classmethod
    def parse(cls, content: bytes) -> BundleIndex:
        """Raises BadArchive."""
        try:
            return msgspec.json.decode(content, type=cls)
        except MALFORMED as problem:
            raise BadArchive(f"the bundle's index.json is no index of images: {problem}") from problem


class BundleList(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has after it loaded a bundle and those before it: the file for the next one's `--since`."""

    blobs: tuple[str, ...] = ()

    @classmethod
    def parse(cls, content: bytes) -> BundleList:
        """Raises BadArchive."""
        try:
            return msgspec.json.decode(content, type=cls)
        except MALFORMED as problem:
            raise BadArchive(f"that is no list of a bundle's content: {problem}") from problem

    def with_blobs(self, digests: Iterable[str]) -> BundleList:
        return BundleList(blobs=tuple(sorted({*self.blobs, *digests})))


def blob_name(digest: str) -> str:
    """The name of a blob in the tar."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
