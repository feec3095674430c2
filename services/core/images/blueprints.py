"""Blueprint manifest: which images a CYROID blueprint zip holds, and under which names they are imported.

docs/blueprints.md describes the format for those who write it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from events.malformed import MALFORMED
from services.core.images.references import Reference
from services.errors import BadArchive, BadReference

MANIFEST = "manifest.json"
FORMAT = "cyroid-blueprint"
VERSION = 1
MANIFEST_LIMIT_BYTES = 1024 * 1024
IMAGES_LIMIT = 500

Sha256 = Annotated[str, Meta(pattern=r"^(sha256:)?[0-9a-f]{64}$")]


class BlueprintImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image: `file` in the zip, or none where the host's engine pulls `reference`.

    `sha256` is that of the file's bytes.
    """

    file: Annotated[str, Meta(max_length=1024)] = ""
    reference: Annotated[str, Meta(max_length=1024)] = ""
    sha256: Sha256 | None = None


class BlueprintManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json`. Fields that are not ours (machines, networks) are passed over."""

    format: str
    version: int
    images: Annotated[tuple[BlueprintImage, ...], Meta(max_length=IMAGES_LIMIT)]
    name: Annotated[str, Meta(max_length=256)] = ""

    def files(self) -> dict[str, BlueprintImage]:
        """The images that the zip holds, by their path in it."""
        return {image.file: image for image in self.images if image.file}

    def pulled(self) -> list[str]:
        """The references that the host's engine pulls."""
        return [image.reference for image in self.images if not image.file]


def read_manifest(content: bytes, origin: str) -> BlueprintManifest:
    """The manifest. Raises BadArchive for one that is no blueprint's, or of a version that is not known."""
    try:
        manifest = msgspec.json.decode(content, type=BlueprintManifest)
    except MALFORMED as problem:
        raise BadArchive(f"{origin}: {MANIFEST} is not a blueprint's: {problem}") from problem
    if manifest.format != FORMAT or manifest.version != VERSION:
        raise BadArchive(
            f"{origin}: {MANIFEST} has format {manifest.format[:64]!r}, version {manifest.version};"
            f" {FORMAT!r}, version {VERSION}, is read here"
        )
    paths = [image.file for image in manifest.images if image.file]
    if not manifest.images or len(set(paths)) != len(paths):
        raise BadArchive(f"{origin}: {MANIFEST} names no images, or one file twice")
    for image in manifest.images:
        if not image.file and not image.reference:
            raise BadArchive(f"{origin}: an image of {MANIFEST} has neither a file nor a reference")
        try:
            _ = image.reference and Reference.parse(image.reference)
        except BadReference as problem:
            raise BadArchive(f"{origin}: {MANIFEST}: {problem}") from problem
    return manifest
