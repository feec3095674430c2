"""Inspection of a range's engine: whether it has the content of a desired image already.

Names prove nothing. On a classic store the image id (the config digest) does. A containerd store calls an image by its
manifest's digest: that is proof too, if it is the manifest asked for. The same diff IDs under another manifest may
carry another config (an image rebuilt with a changed environment alone), so they do not make an image *present*; the
transfer that follows is small then, because every layer is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from events.messages import Layer
from services.core.images.image import EngineImage
from services.errors import WrongContent
from services.ports import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The image a range should have, under `reference`. `source` is where the registry has it (`repository@digest`)."""

    reference: str
    image_id: str
    diff_ids: tuple[str, ...]
    source: str | None = None
    layers: tuple[Layer, ...] = ()
    token: str | None = field(default=None, repr=False)

    @property
    def manifest_digest(self) -> str | None:
        return self.source.rpartition("@")[2] if self.source else None

    def is_surely(self, image: EngineImage) -> bool:
        """Whether `image` is proven to be the wanted content on this engine."""
        if image.image_id is not None:
            return image.image_id == self.image_id
        return image.local_id == self.manifest_digest

    def is_after_transfer(self, image: EngineImage) -> bool:
        """Whether what came is the wanted content; the engine checked the digests of the archive or manifest itself.

        So where it does not know the config digest, diff IDs do, also none at all: an image may be only a config.
        """
        if image.image_id is None:
            return image.diff_ids == self.diff_ids
        return image.image_id == self.image_id


async def inspect_content(engine: Engine, wanted: Wanted) -> EngineImage | None:
    """The wanted content as this engine has it, under whatever name; None if it is not surely there."""
    names = [wanted.reference, wanted.image_id, *([wanted.manifest_digest] if wanted.manifest_digest else [])]
    for name in names:
        image = await engine.inspect(name)
        if image is not None and wanted.is_surely(image):
            return image
    return None


async def give_name(engine: Engine, wanted: Wanted, image: EngineImage) -> None:
    """Tag the content as desired, remove the registry's name from it, and check that the engine reports it so."""
    registry_name = wanted.source if wanted.source in image.repo_digests else None
    if wanted.reference in image.references and registry_name is None:
        return
    await engine.tag(image.local_id, wanted.reference)
    if registry_name is not None:
        await engine.untag(registry_name)
    named = await engine.inspect(wanted.reference)
    if named is None or not wanted.is_after_transfer(named):
        raise WrongContent(f"{wanted.reference} is not {wanted.image_id} after it was named so: somebody renamed it")
