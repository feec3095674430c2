"""Pull of an image from the registry, by digest, with a stall watch.

An engine whose registry has gone tries again for more than a minute; it says so, and after `retry_seconds` of that
without a byte the pull is given up, so that the image can come another way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from services.agent.inspection import Wanted, give_name
from services.agent.stall_watch import Activity, Watch
from services.core.images.pull_progress import PullProgress
from services.errors import CyroidError, TransferFailed, WrongContent
from services.ports import Engine, EngineProgress

Report = Callable[[PullProgress], None]
#: How long an engine may take to drop a name, on the way out.
DROP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a transfer may stand still, and how long an engine may say that it tries again.

    An archive's turn at the tar server may take `turn_seconds` to come, and the server not answer for `away_seconds`.
    """

    stall_seconds: float = 60.0
    retry_seconds: float = 10.0
    turn_seconds: float = 1800.0
    away_seconds: float = 60.0


async def pull(
    engine: Engine,
    wanted: Wanted,
    *,
    activity: Activity,
    patience: Patience,
    report: Report,
    coming: set[str] | None = None,
) -> PullProgress:
    """Bring `wanted` from its source and name it; what was received and reused is in the progress returned.

    `coming` is shared by all pulls of this engine, so that a layer they share is counted once.

    Leaves nothing behind when it fails or is cancelled: neither a name nor an image that nobody asked for.
    Raises whatever the engine says, Stalled, TransferFailed or WrongContent.
    """
    if wanted.source is None:
        raise ValueError("an image without a source cannot be pulled")
    progress = PullProgress(wanted.layers, coming)
    named = False
    try:
        with activity.watch(patience.stall_seconds) as watch:
            watch.retell = lambda: report(progress)
            async with (
                watch.guard(f"the pull of {wanted.reference}"),
                engine.pull(wanted.source, token=wanted.token) as lines,
            ):
                async for line in lines:
                    _take(line, progress, watch, activity, patience)
                    report(progress)
        await _keep(engine, wanted, wanted.source)
        named = True
    finally:
        progress.over()
        if not named:
            await _drop(engine, wanted.source)
    return progress


def _take(line: EngineProgress, progress: PullProgress, watch: Watch, activity: Activity, patience: Patience) -> None:
    moved = progress.take(line.status, line.layer, line.done_bytes, line.total_bytes)
    watch.queued = progress.queued
    if moved:
        activity.moved(watch)
    elif progress.retrying:
        watch.hurry(patience.retry_seconds)


async def _keep(engine: Engine, wanted: Wanted, source: str) -> None:
    """Inspect what the engine has now; the clean end of a pull is no proof."""
    image = await engine.inspect(source)
    if image is None:
        raise TransferFailed(f"the pull of {wanted.reference} ended, but the engine does not have {source}")
    if not wanted.is_after_transfer(image):
        raise WrongContent(f"{source} is {image.image_id or image.diff_ids}, not {wanted.image_id}")
    await give_name(engine, wanted, image)


async def _drop(engine: Engine, source: str) -> None:
    try:
        async with asyncio.timeout(DROP_SECONDS):
            await engine.untag(source)
    except (CyroidError, TimeoutError):
        return  # the engine is unavailable: the next try finds the name and drops it
