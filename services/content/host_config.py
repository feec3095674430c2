"""Image config read from the host's engine: from the first layer source that has it, bounded and verified.

The config's digest is the image's id, and it lists the diff IDs. An engine with a containerd store tells neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.core.images.image import EngineImage
from services.core.images.manifests import ImageConfig, check_config_size, sha256
from services.errors import BadInput, LayerUnreadable, WrongContent
from services.ports import LayerSource
from services.runtime import metrics
from services.runtime.telemetry import get_logger

log = get_logger(role="content")


async def host_config(
    sources: Sequence[LayerSource], image: EngineImage, *, timeout_seconds: float | None = None
) -> bytes:
    """The config JSON. `timeout_seconds` bounds each source's reading.

    Raises LayerUnreadable with the last source's reason if none gives it, BadInput if it is larger than a config may
    be, and what the engine's own errors are (`services.errors.Unavailable`, NotFound).
    """
    last: Exception | None = None
    for source in sources:
        try:
            async with asyncio.timeout(timeout_seconds):
                config = await source.config(image)
            check_config_size(len(config), image.local_id)
            _verify(config, image)
        except (LayerUnreadable, WrongContent, TimeoutError) as problem:
            last = problem
            why = str(problem) or f"not read within {timeout_seconds:g} s"
            log.warning("a layer source does not give a config", source=source.name, image=image.local_id, why=why)
            reason = "stalled" if isinstance(problem, TimeoutError) else problem.code
            metrics.source_fallbacks.labels(source=source.name, reason=reason).inc()
        else:
            return config
    why = f" ({last})" if last is not None else ""
    raise LayerUnreadable(f"no source on the host gives the config of {image.local_id}{why}") from last


def _verify(config: bytes, image: EngineImage) -> None:
    """Raises WrongContent for another image's config."""
    wrong = image.image_id is not None and sha256(config) != image.image_id
    try:
        wrong = wrong or ImageConfig.parse(config).rootfs.diff_ids != image.diff_ids
    except BadInput as problem:
        raise WrongContent(f"what should be the config of {image.local_id} is none: {problem}") from problem
    if wrong:
        raise WrongContent(f"what should be the config of {image.local_id} is another image's")
