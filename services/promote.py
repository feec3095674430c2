"""Makes an image of what a container became, or gives an image another name.

Consumes nothing (the CLI and the API call it); emits `image.promoted.v1` to the images stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from events.messages import ImageAppeared, ImagePromoted, Push
from services.announcing import Announcer, target_reference
from services.core.references import Reference
from services.errors import NotFound
from services.ports import Engine


class PromoteService:
    """Container or image in, image under a new name and event out."""

    def __init__(self, *, engine: Engine, announcer: Announcer) -> None:
        self._engine = engine
        self._announcer = announcer

    async def promote_container(
        self,
        container: str,
        *,
        reference: str,
        changes: Sequence[str] = (),
        push: Push = "auto",
        correlation_id: str = "",
    ) -> ImageAppeared:
        """`docker commit`: the container stands still while its file system is read. Raises NotFound, BadInput.

        changes  Dockerfile instructions to apply, for instance `CMD ["nginx"]`
        """
        name = target_reference(reference)
        await self._announcer.check()
        await self._engine.commit(container, reference=name, changes=changes)
        return await self._announcer.announce(
            ImagePromoted, name, origin=container, push=push, correlation_id=correlation_id
        )

    async def promote_image(
        self, source: str, *, reference: str, push: Push = "auto", correlation_id: str = ""
    ) -> ImageAppeared:
        """The image `source` also under the name `reference`. Raises NotFound."""
        name = target_reference(reference)
        origin = source if source.startswith("sha256:") else str(Reference.parse(source))
        await self._announcer.check()
        image = await self._engine.inspect(origin)
        if image is None:
            raise NotFound(f"the host's engine has no image {source}; `cyroid-images images ls` lists those it has")
        await self._engine.tag(image.local_id, name)
        return await self._announcer.announce(
            ImagePromoted, name, origin=origin, push=push, correlation_id=correlation_id
        )
