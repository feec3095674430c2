"""Log line of each image's end: how it came, what was sent, how long it took, or why it failed."""

from __future__ import annotations

from services.core.deployments.deployment import Deployment, ImageState
from services.runtime.telemetry import get_logger

_log = get_logger(role="deployer")


def log_ends(before: Deployment | None, after: Deployment) -> None:
    """One line for each image that the transition ended."""
    for index, image in enumerate(after.images):
        if image.ended and (before is None or not before.images[index].ended):
            _log_end(after, image)


def _log_end(deployment: Deployment, image: ImageState) -> None:
    outcome = image.outcome()
    write = _log.error if image.state == "failed" else _log.info
    error = {"code": outcome.error.code, "why": outcome.error.message} if outcome.error else {}
    write(
        f"image {image.state}",
        image=image.reference,
        range=deployment.range_id,
        deployment=deployment.deployment_id,
        path=outcome.how,
        bytes=outcome.sent_bytes,
        layers_reused=outcome.layers_reused,
        seconds=round(outcome.seconds, 3),
        correlation_id=deployment.correlation_id,
        **error,
    )
