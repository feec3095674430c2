"""Damage in the registry as a push meets it: a blob whose size is not the layer's.

A registry answers HEAD for a file that was cut on its disk, and takes an upload of the right bytes for one that is not
needed. So a size that differs is looked into before anything relies on it: the blob is read and hashed. Sound content
of another size only means that what was expected is wrong. Damaged content is reported to the collector, which sets it
aside; the push fails and is tried again by its worker, and then finds the blob missing and sends it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from services.core.images.encodings import LayerEncoding
from services.core.images.image import EngineImage
from services.errors import BlobDamaged, LayerUnreadable, WrongContent
from services.ports import LayerSource, Registry
from services.runtime.telemetry import get_logger

_log = get_logger(role="registry-pusher")
#: Ask for a digest to be checked and set aside.
ReportDamage = Callable[[str], Awaitable[None]]


async def nobody_mends(digest: str) -> None:
    """Where no collector can be asked."""


async def told_size(source: LayerSource, image: EngineImage, diff_id: str) -> int | None:
    """Bytes of a raw layer, where its source tells them without reading it."""
    try:
        return await source.size(image, diff_id)
    except (LayerUnreadable, WrongContent) as problem:  # reading it will say so again, and count it
        _log.info("a layer source does not tell a size", source=source.name, layer=diff_id, why=str(problem))
        return None


async def expected_size(
    sources: Sequence[LayerSource], image: EngineImage, diff_id: str, form: LayerEncoding
) -> int | None:
    """The size of a layer in its form, as far as anybody can tell without reading it."""
    if form.codec != "raw":
        return form.size_bytes
    for source in sources:
        size_bytes = await told_size(source, image, diff_id)
        if size_bytes is not None:
            return size_bytes
    return None


class BlobSizes:
    """`agrees` is the whole of it."""

    def __init__(self, registry: Registry, report: ReportDamage = nobody_mends) -> None:
        self._registry = registry
        self._report = report

    async def agrees(self, repository: str, digest: str, found: int, expected: int | None) -> bool:
        """Whether a blob has the size that is expected of it; one of another size is sound. Raises BlobDamaged."""
        if expected is None or found == expected:
            return True
        if await self._is_sound(repository, digest):
            _log.warning("a blob has another size than expected", digest=digest, found=found, expected=expected)
            return False
        await self.suspect(digest)
        raise BlobDamaged(
            f"the registry's blob {digest} in {repository} is damaged: it has {found} bytes, not {expected}; the role"
            " collector sets it aside, then it is sent again"
        )

    async def suspect(self, digest: str) -> None:
        """Have a blob or a manifest checked, and set aside where it is damaged."""
        await self._report(digest)

    async def _is_sound(self, repository: str, digest: str) -> bool:
        try:
            async with self._registry.open_blob(repository, digest) as chunks:
                async for _ in chunks:  # the registry's client hashes what it reads
                    pass
        except WrongContent:
            return False
        return True
