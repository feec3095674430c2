"""The documents that say which images an archive holds: `manifest.json` of `docker save`, `index.json` of OCI layouts.

moby image/tarexport, OCI image-layout.md and image-index.md. Both are read as Go reads them (`core/images/go_json`),
and written anew for the engine, so that what it acts on is what was checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from services.core.images.go_json import decode
from services.core.images.manifests import DOCKER_CONFIG, OCI_CONFIG, OCI_INDEX
from services.core.images.references import Reference

MANIFEST = "manifest.json"
INDEX = "index.json"
LAYOUT = "oci-layout"
#: What is taken out of an archive on its way and written anew at its end.
DOCUMENTS = frozenset({MANIFEST, INDEX, LAYOUT})

CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_ATTESTATION = "vnd.docker.reference.type"
IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})


class DockerImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One image in `manifest.json`: paths in the archive. An empty layer path leaves a layer out."""

    config: str
    repo_tags: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a manifest of an index runs."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Pointer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A descriptor in an index (OCI descriptor.md); `size` is in bytes, as the specification names it."""

    digest: str
    media_type: str = ""
    size: int = 0
    annotations: dict[str, str] = {}
    platform: Platform | None = None
    urls: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Where an OCI layout keeps the blob."""
        return f"blobs/{self.digest.replace(':', '/')}"

    @property
    def is_attestation(self) -> bool:
        """Whether it tells something about another manifest and is no image itself."""
        unknown = self.platform is not None and str(self.platform) == "unknown/unknown"
        return unknown or _ATTESTATION in self.annotations

    @property
    def name(self) -> str | None:
        """The image's name. `ref.name` counts where it is one: many writers put nothing but the tag there."""
        if name := self.annotations.get(CONTAINERD_NAME):
            return name
        name = self.annotations.get(REF_NAME, "")
        return name if ":" in name or "/" in name else None


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An index of manifests, or of indexes."""

    manifests: tuple[Pointer, ...] = ()


class BlobManifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image manifest, with what descriptors say beside digest and size."""

    config: Pointer
    layers: tuple[Pointer, ...] = ()


def docker_images(content: bytes) -> list[DockerImage]:
    """Raises msgspec.DecodeError."""
    return [] if content.strip() == b"null" else decode(content, list[DockerImage])


def index_of(content: bytes) -> Index:
    """Raises msgspec.DecodeError."""
    return decode(content, Index)


def write_manifest(images: Sequence[DockerImage]) -> bytes:
    """`manifest.json`, as classic stores read it."""
    return msgspec.json.encode(images)


def write_index(pointers: Iterable[tuple[Pointer, str]]) -> bytes:
    """`index.json` of images and their normalised names, as containerd stores read it."""
    named = []
    for pointer, name in pointers:
        tag = Reference.parse(name).tag
        annotations = {CONTAINERD_NAME: name} | ({REF_NAME: tag} if tag else {})
        named.append(msgspec.structs.replace(pointer, annotations={**pointer.annotations, **annotations}))
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named})


LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
