"""Wake-up of the deployments that wait for a push: each gets an advance with the result of the push."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from events.bus import Delivery, Outcome
from events.messages import DeploymentAdvance, ImagePushed, ImagePushFailed
from services.deployer.outcomes import OutcomeWriter


def woken(
    writer: OutcomeWriter,
    stream: str,
    delivery: Delivery[ImagePushed | ImagePushFailed],
    *,
    reference: str,
    waiting: Iterable[str],
    now: datetime,
) -> Outcome:
    """An advance on `stream` for each deployment in `waiting`; every replica makes the same ones."""
    message = delivery.message
    error = message.error if isinstance(message, ImagePushFailed) else None
    posts = (
        writer.shared(
            stream,
            DeploymentAdvance(
                deployment_id=deployment_id,
                why="push_failed" if error else "pushed",
                reference=reference,
                image_id=message.image_id,
                error=error,
            ),
            about=deployment_id,
            now=now,
            key=delivery.envelope.id,
            correlation_id=delivery.envelope.correlation_id,
            causation_id=delivery.envelope.id,
            traceparent=delivery.envelope.traceparent or "",
        )
        for deployment_id in waiting
    )
    return Outcome(posts=tuple(posts))
