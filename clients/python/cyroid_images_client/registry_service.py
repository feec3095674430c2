"""The registry for CYROID's code: push, look, list, count, delete."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import uuid4

from cyroid_images_client.callbacks import guarded
from cyroid_images_client.client import ApiClient, ApiError, path_of

log = logging.getLogger("cyroid_images_client")
#: Called with a status for people and a percentage.
ProgressCallback = Callable[[str, int], object]
POLL_SECONDS = 0.5
#: A push that has no record after this was never taken by a pusher.
RECORD_SECONDS = 30.0
_ENDED = frozenset({"pushed", "failed", "skipped"})


class RegistryService:
    """Every method may be awaited from any event loop. What answers `bool` answers False on failure, and logs why."""

    def __init__(self, api: ApiClient | None = None, *, push_seconds: float = 3600.0) -> None:
        self._api = api or ApiClient()
        self._push_seconds = push_seconds

    async def is_healthy(self) -> bool:
        """Whether the registry answers."""
        try:
            return bool((await self._api.get("/api/v1/registry/stats"))["healthy"])
        except ApiError:
            return False

    async def image_exists(self, image_tag: str) -> bool:
        """Whether the registry has something under this name."""
        return await self._tag(image_tag) in {"same", "other", "there"}

    async def image_needs_push(self, image_tag: str) -> bool:
        """Whether the registry lacks what the host's engine has under this name: nothing there, or other content."""
        return await self._tag(image_tag) in {"other", "none"}

    async def push_image(self, image_tag: str, progress_callback: ProgressCallback | None = None) -> bool:
        """Push what the host's engine has under a name; only what the registry lacks is sent."""
        tell = guarded(progress_callback)
        try:
            tell("Pushing to registry...", 0)
            asked = await self._api.post("/api/v1/registry/push", {"reference": image_tag}, key=uuid4().hex)
            async with asyncio.timeout(self._push_seconds):
                end = await self._follow(asked["id"], tell)
        except ApiError as problem:
            log.error("cannot push %s: %s", image_tag, problem)
            return False
        except TimeoutError:
            log.error("the push of %s did not end in time; it goes on", image_tag)
            return False
        if end["state"] == "failed":
            log.error("cannot push %s: %s", image_tag, (end.get("error") or {}).get("message", "no reason is known"))
            return False
        tell("Push complete", 100)
        return True

    async def ensure_image_in_registry(self, image_tag: str, progress_callback: ProgressCallback | None = None) -> bool:
        """Push it if the registry lacks it; a tag that was rebuilt is pushed again."""
        tag = await self._tag(image_tag)
        if tag in {"same", "there"}:
            guarded(progress_callback)("Image already in registry", 100)
            return True
        return await self.push_image(image_tag, progress_callback)

    async def push_and_cleanup(
        self,
        image_tag: str,
        progress_callback: ProgressCallback | None = None,
        *,
        remove: Callable[[str], object] | None = None,
    ) -> bool:
        """Push it; then `remove` (such as `docker_client.images.remove`) takes it from the host's engine.

        The API does not touch images of the host's engine, so without `remove` the image stays there.
        """
        if not await self.push_image(image_tag, progress_callback):
            return False
        if remove is not None:
            try:
                await asyncio.to_thread(remove, image_tag)
            except Exception:  # the caller's own code: any error, and the push is done
                log.exception("%s is in the registry, but could not be removed from the host's engine", image_tag)
        return True

    async def delete_image(self, image_tag: str, *, force: bool = False) -> bool:
        """Delete a tag from the registry. False for one that ranges need, unless `force`."""
        try:
            path = path_of("images", image_tag)
            await self._api.delete(f"{path}?force=true" if force else path)
        except ApiError as problem:
            log.error("cannot delete %s: %s", image_tag, problem)
            return False
        return True

    async def list_images(self) -> list[dict[str, Any]]:
        """`name` and `tags` of every repository; empty when the API does not answer."""
        listed: dict[str, list[str]] = {}
        try:
            async for row in self._rows("/api/v1/registry/images"):
                listed.setdefault(row["repository"], []).append(row["tag"])
        except ApiError as problem:
            log.error("cannot list images: %s", problem)
            return []
        return [{"name": name, "tags": tags} for name, tags in listed.items()]

    async def get_stats(self) -> dict[str, Any]:
        """`image_count` (repositories), `tag_count`, `healthy`, and the API's own figures beside them."""
        try:
            stats = await self._api.get("/api/v1/registry/stats")
        except ApiError as problem:
            log.error("cannot count images: %s", problem)
            return {"image_count": 0, "tag_count": 0, "healthy": False}
        return {**stats, "image_count": stats["repositories"], "tag_count": stats["images"]}

    async def close(self) -> None:
        """Nothing is kept open; callers of CYROID's own service may call it."""

    async def _tag(self, image_tag: str) -> str:
        """What the registry has under a name: same, other, none; `there` if only the registry knows it; unknown."""
        try:
            preview = await self._api.get("/api/v1/registry/push/preview", reference=image_tag)
            return str(preview["tag"])
        except ApiError as problem:
            if problem.code not in {"not_found", "engine_unavailable"}:
                log.error("cannot look for %s in the registry: %s", image_tag, problem)
                return "unknown"
        try:
            await self._api.get(path_of("registry", "images", image_tag))
        except ApiError as problem:
            return "none" if problem.status == 404 else "unknown"
        return "there"

    async def _follow(self, push_id: str, tell: Callable[[str, int], None]) -> dict[str, Any]:
        """The record of a push once it has ended."""
        deadline = asyncio.get_running_loop().time() + RECORD_SECONDS
        while True:
            try:
                record: dict[str, Any] = await self._api.get(path_of("pushes", push_id))
            except ApiError as problem:
                late = asyncio.get_running_loop().time() > deadline
                if not problem.retryable and (problem.status != 404 or late):
                    raise
            else:
                if record["state"] in _ENDED:
                    return record
                total = record.get("total_bytes") or 0
                percent = min(99, int(100 * (record.get("done_bytes") or 0) / total)) if total else 0
                tell("Pushing layers..." if percent else "Pushing to registry...", percent)
            await asyncio.sleep(POLL_SECONDS)

    async def _rows(self, path: str) -> Any:
        cursor: str | None = None
        while True:
            page = await self._api.get(path, limit=1000, **({"cursor": cursor} if cursor else {}))
            for row in page["items"]:
                yield row
            cursor = page.get("next")
            if not cursor:
                return


@cache
def get_registry_service() -> RegistryService:
    """The one service of this process, as the environment says when it is first asked for."""
    return RegistryService()
