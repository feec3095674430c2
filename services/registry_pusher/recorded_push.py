"""One push from begin to end, with progress, metrics and one log line; for the role and for RegistryService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec.structs import replace

from events.bus import BusError
from events.messages import ImagePushed
from services.errors import CyroidError, of_bus
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.outcome import PushRecord, whole
from services.registry_pusher.progress import ProgressCounters
from services.runtime.telemetry import Logger

Phase = Literal["checking", "sending", "done", "failed"]
Report = Callable[[ProgressCounters, Phase], None]


async def _keep(pushed: ImagePushed) -> None:
    """Keep nothing: the caller commits the outcome later."""


async def recorded_push(
    push: ImagePush,
    reference: str,
    *,
    log: Logger,
    correlation_id: str,
    report: Report,
    image_id: str | None = None,
    actor: str = "",
    source: str = "",
    host: str | None = None,
    keep: Callable[[ImagePushed], Awaitable[None]] = _keep,
) -> ImagePushed:
    """Push, and `keep` the outcome; a failure of either is recorded as the push's.

    Raises what `ImagePush.push` raises, and BusError.
    """
    record = PushRecord(log, reference, correlation_id)
    report(ProgressCounters(), "checking")

    def changed(counters: ProgressCounters) -> None:
        record.changed(counters)
        report(counters, "sending")

    try:
        pushed = await push.push(reference, image_id=image_id, changed=changed)
        pushed = replace(pushed, actor=actor, source=source, host=host)
        await keep(pushed)
    except (CyroidError, BusError) as problem:
        report(ProgressCounters(), "failed")
        record.failed(problem if isinstance(problem, CyroidError) else of_bus(problem))
        raise
    record.ended(pushed)
    report(whole(pushed), "done")
    return pushed
