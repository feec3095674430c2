"""Which image of an index a platform runs (OCI image-index.md; Docker manifest list).

An index names manifests by platform. Attestations are listed beside the images, with the platform `unknown/unknown`;
they and artifacts are passed over.
"""

from __future__ import annotations

import msgspec

from services.core.images.go_json import decode
from services.errors import NotAnImage, Unavailable

_ATTESTATION = "vnd.docker.reference.type"


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest is for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        base = f"{self.os}/{self.architecture}"
        return f"{base}/{self.variant}" if self.variant else base


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One manifest that an index names."""

    digest: str
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] = {}
    artifact_type: str | None = None

    @property
    def is_image(self) -> bool:
        """Whether it may be an image of a platform."""
        unknown = self.platform is not None and "unknown" in {self.platform.os, self.platform.architecture}
        return not unknown and _ATTESTATION not in self.annotations and self.artifact_type is None


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """An index, as a registry has it."""

    manifests: tuple[IndexEntry, ...]

    @classmethod
    def parse(cls, content: bytes) -> Index | None:
        """None for what is no index."""
        try:
            return decode(content, cls)
        except msgspec.DecodeError:
            return None

    @property
    def images(self) -> tuple[IndexEntry, ...]:
        return tuple(entry for entry in self.manifests if entry.is_image)

    def choose(self, platform: str | None) -> IndexEntry:
        """The manifest for `os/architecture[/variant]`: the same variant, or one without, or the first.

        Raises NotAnImage where none is for it, and Unavailable where the platform is not known yet and would decide.
        """
        images = self.images
        if platform is None:
            if len(images) > 1:
                raise Unavailable(f"it is an index of {self._names()}, and the range has not said yet what it runs")
            fitting = list(images)
        else:
            fitting = [one for one in images if one.platform is None or _same(str(one.platform), platform)]
        if not fitting:
            raise NotAnImage(f"is an index of {self._names()}, with nothing for {platform or 'any platform'}")
        exact = [one for one in fitting if str(one.platform) == platform]
        plain = [one for one in fitting if one.platform is not None and not one.platform.variant]
        return (exact or plain or fitting)[0]

    def _names(self) -> str:
        return ", ".join(str(one.platform or "no platform") for one in self.images) or "no image at all"


def _same(one: str, other: str) -> bool:
    return one.split("/")[:2] == other.split("/")[:2]
