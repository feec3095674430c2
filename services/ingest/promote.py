"""Promotes: makes an image of a container's changes, or gives an image another name.

Consumes no stream (it is called in the process of its caller); publishes `image.promoted.v1` to the images stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from events.messages import ImageAppeared, ImagePromoted, Push
from services.core.images.references import Reference
from services.errors import NotFound
from services.ingest.announcer import Announcer, target_reference
from services.ports import Engine


class PromoteService:
    """Makes an image of a container, or names an image, and publishes the event."""

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
        actor: str = "",
    ) -> ImageAppeared:
        """`docker commit`: the container stands still while its file system is read. Raises NotFound, BadInput.

        changes  Dockerfile instructions to apply, for instance `CMD ["nginx"]`
        """
        name = target_reference(reference)
        await self._announcer.check()
        await self._engine.commit(container, reference=name, changes=changes)
        return await self._announcer.announce(
            ImagePromoted, name, origin=container, push=push, correlation_id=correlation_id, actor=actor
        )

    async def promote_image(
        self, source: str, *, reference: str, push: Push = "auto", correlation_id: str = "", actor: str = ""
    ) -> ImageAppeared:
        """Give the image `source` the name `reference` as well. Raises NotFound."""
        name = target_reference(reference)
        origin = source if source.startswith("sha256:") else str(Reference.parse(source))
        await self._announcer.check()
        image = await self._engine.inspect(origin)
        if image is None:
            raise NotFound(f"the host's engine has no image {source}", hint="cyroid-images images ls")
        await self._engine.tag(image.local_id, name)
        return await self._announcer.announce(
            ImagePromoted, name, origin=origin, push=push, correlation_id=correlation_id, actor=actor
        )
