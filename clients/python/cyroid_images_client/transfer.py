"""Transfer of an image to a range's engine: a deployment, followed to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from cyroid_images_client.callbacks import guarded
from cyroid_images_client.client import ApiClient, ApiError, path_of

log = logging.getLogger("cyroid_images_client")
#: Called with bytes transferred, bytes in all, and a status: starting, transferring, complete, already_exists, error.
TransferCallback = Callable[[int, int, str], object]
POLL_SECONDS = 0.5
_ENDED = frozenset({"succeeded", "failed", "cancelled"})


async def transfer_image_to_dind(
    range_id: str,
    docker_url: str | None,
    image: str,
    pull_if_missing: bool = True,
    progress_callback: TransferCallback | None = None,
    arch: str | None = None,
    *,
    api: ApiClient | None = None,
    seconds: float = 3600.0,
) -> bool:
    """Bring an image to a range; True once its engine has it.

    docker_url       the range's engine, `tcp://HOST:PORT`; None where the range has an agent of its own
    pull_if_missing  kept for callers: images come from the host's engine and the local registry alone
    arch             such as `amd64` or `arm64`; None: what the range's engine runs
    """
    client, tell = api or ApiClient(), guarded(progress_callback)
    body: dict[str, object] = {"range_id": str(range_id), "images": [image]}
    if docker_url:
        body["engine_url"] = docker_url
    if arch:
        body["platform"] = arch if "/" in arch else f"linux/{arch}"
    tell(0, 0, "starting")
    try:
        asked = await client.post("/api/v1/deployments", body, key=uuid4().hex)
        async with asyncio.timeout(seconds):
            ended = await _follow(client, asked["deployment_id"], tell)
    except ApiError as problem:
        log.error("cannot transfer %s to %s: %s", image, range_id, problem)
        tell(0, 0, "error")
        return False
    except TimeoutError:
        log.error("the transfer of %s to %s did not end in time; it goes on", image, range_id)
        tell(0, 0, "error")
        return False
    one = ended["images"][0] if ended["images"] else {}
    if ended["state"] != "succeeded":
        reason = one.get("error") or ended.get("error") or {}
        log.error("cannot transfer %s to %s: %s", image, range_id, reason.get("message", ended["state"]))
        tell(0, 0, "error")
        return False
    size = int(one.get("size_bytes") or 0)
    tell(size, size, "already_exists" if one.get("how") == "present" else "complete")
    return True


async def _follow(client: ApiClient, deployment_id: str, tell: Callable[[int, int, str], None]) -> dict[str, Any]:
    """The deployment once it has ended. An API that is away for a while is asked again."""
    while True:
        try:
            view: dict[str, Any] = await client.get(path_of("deployments", deployment_id))
        except ApiError as problem:
            if not problem.retryable:
                raise
        else:
            if view["state"] in _ENDED:
                return view
            tell(*_progress(view), "transferring")
        await asyncio.sleep(POLL_SECONDS)


def _progress(view: Mapping[str, Any]) -> tuple[int, int]:
    transfers = view.get("transfers") or []
    if transfers:
        return int(transfers[-1].get("done_bytes") or 0), int(transfers[-1].get("total_bytes") or 0)
    images = view.get("images") or [{}]
    return int(images[0].get("received_bytes") or 0), int(images[0].get("size_bytes") or 0)
