"""Look at the host's engine: what it has under a name now, by name or by content."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.core.deployments.facts import HostImage
from services.core.images.image import EngineImage
from services.errors import CyroidError
from services.ports import Engine, LayerSource
from services.registry_pusher.host_content import HostContent


class HostLook:
    """Looks at one engine. `sources` tell the content of an image where the engine itself cannot."""

    def __init__(
        self, engine: Engine, sources: Sequence[LayerSource] = (), *, host: str = "", timeout_seconds: float = 20.0
    ) -> None:
        self._engine = engine
        self._content = HostContent(sources)
        self._host = host
        self._timeout = timeout_seconds

    async def find(
        self, reference: str, image_id: str | None = None, diff_ids: tuple[str, ...] = ()
    ) -> tuple[HostImage | None, str | None]:
        """What is there, and why that is not known; by name, and content that is chosen already also by its id.

        Its name may have moved meanwhile.
        """
        found, _, away = await self.engine_image(reference, image_id, diff_ids)
        return found, away

    async def tar_url(self, host: str) -> str | None:
        """None: where the tar server is, is for whoever asks to know."""
        return None

    async def engine_image(
        self, reference: str, image_id: str | None, diff_ids: tuple[str, ...]
    ) -> tuple[HostImage | None, EngineImage | None, str | None]:
        """The same, with the image as the engine describes it."""
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._engine.inspect(reference)
                if image_id is not None and not _is_wanted(found, image_id, diff_ids):
                    found = await self._engine.inspect(image_id)
        except TimeoutError:
            return None, None, f"the host's engine did not answer within {self._timeout:.0f} s"
        except CyroidError as problem:
            return None, None, str(problem)
        if found is None or (image_id is not None and not _is_wanted(found, image_id, diff_ids)):
            return None, None, None
        known = await self._content.image_id(found)
        if None not in (known, image_id) and known != image_id:
            return None, None, None
        image = HostImage(
            image_id=known,
            diff_ids=found.diff_ids,
            size_bytes=found.size_bytes,
            platform=found.platform,
            host=self._host,
        )
        return image, found, None


def _is_wanted(found: EngineImage | None, image_id: str, diff_ids: tuple[str, ...]) -> bool:
    return found is not None and found.is_content(image_id, diff_ids)
