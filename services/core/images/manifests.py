"""Manifests and configs as registries and archives hold them (OCI image-spec; Docker image manifest v2 schema 2).

A manifest is kept together with its exact bytes, because its digest is theirs.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Self

import msgspec

from services.core.images.go_json import decode
from services.errors import BadInput, NotAnImage

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


#: The largest manifest or index that is read: registry 2.8 takes no larger one.
MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
#: The largest image config that is pushed, moved or read. Configs list commands and labels: they have some kilobytes.
CONFIG_LIMIT_BYTES = 16 * 1024 * 1024


def check_config_size(size_bytes: int, image: str) -> None:
    """Raises BadInput for a config above the limit: every reader holds it in memory, so no reader would take it."""
    if size_bytes > CONFIG_LIMIT_BYTES:
        raise BadInput(
            f"the config of {image} has {size_bytes} bytes, more than the {CONFIG_LIMIT_BYTES} that it may have:"
            " build the image with less in labels and environment"
        )


#: Config types of images; one may have a version or a suffix of its own. Helm charts, SBOMs and the like have others.
_IMAGE_CONFIGS = (
    "application/vnd.oci.image.config",
    "application/vnd.docker.container.image",
    "application/octet-stream",
)
_ATTESTATION = "application/vnd.in-toto+json"


def sha256(content: bytes) -> str:
    """`sha256:<hex>` of `content`."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A typed pointer to a blob (OCI descriptor.md). `size` is in bytes, as the specification names it."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] = ()


class ManifestBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The fields of an image manifest that matter here."""

    schema_version: Literal[2]
    config: Descriptor
    media_type: str = OCI_MANIFEST
    layers: tuple[Descriptor, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest, its exact bytes and what they say."""

    content: bytes
    body: ManifestBody

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """From a registry's answer. Raises NotAnImage, with what it is, for anything that is not an image manifest."""
        try:
            body = decode(content, ManifestBody)
        except msgspec.DecodeError as problem:
            raise NotAnImage(f"is no image manifest: {problem}", content) from problem
        if not body.config.media_type.startswith(_IMAGE_CONFIGS):
            raise NotAnImage(f"is an artifact ({body.config.media_type}), not an image", content)
        if any(layer.media_type == _ATTESTATION for layer in body.layers):
            raise NotAnImage("is an attestation of a build, not an image", content)
        return cls(content=content, body=body)

    @classmethod
    def write(cls, config: Descriptor, layers: tuple[Descriptor, ...], media_type: str = OCI_MANIFEST) -> Self:
        """The one way this project serialises a manifest: the same image gives the same bytes, so the same digest."""
        body = ManifestBody(schema_version=2, media_type=media_type, config=config, layers=layers)
        plain = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": layers,
        }
        return cls(content=msgspec.json.encode(plain), body=body)

    @property
    def digest(self) -> str:
        return sha256(self.content)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(media_type=self.body.media_type, digest=self.digest, size=len(self.content))


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of a config, base first."""

    type: str = "layers"
    diff_ids: tuple[str, ...] = ()


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an image config that matter here (OCI config.md)."""

    architecture: str
    os: str
    rootfs: RootFs = RootFs()
    variant: str | None = None

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Raises BadInput for anything that is not an image config."""
        try:
            return decode(content, cls)
        except msgspec.DecodeError as problem:
            raise BadInput(f"this is no image config: {problem}") from problem

    @property
    def platform(self) -> str:
        base = f"{self.os}/{self.architecture}"
        return f"{base}/{self.variant}" if self.variant else base
