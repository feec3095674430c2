"""Command to change the priority of a deployment that waits: its request once more, with another priority."""

from __future__ import annotations

from events.bus import BusClient
from events.messages import DeploymentRequested
from events.streams import Streams
from services.core.deployments.index import DeploymentKeys
from services.errors import BadInput, NotFound


async def with_priority(bus: BusClient, streams: Streams, deployment_id: str, priority: int) -> DeploymentRequested:
    """The request to publish. Raises NotFound, BadInput for a deployment that has ended, BusError."""
    deployment = (await DeploymentKeys(streams.prefix).record(deployment_id).load(bus)).value
    if deployment is None:
        raise NotFound(f"there is no deployment {deployment_id!r}", hint="cyroid-images deployments ls")
    if not deployment.open:
        raise BadInput(f"deployment {deployment_id} has ended ({deployment.state}): nothing of it waits")
    return DeploymentRequested(
        deployment_id=deployment_id,
        range_id=deployment.range_id,
        images=tuple(image.reference for image in deployment.images) or deployment.asked,
        platform=deployment.platform,
        engine_url=deployment.engine_url,
        priority=priority,
        host=(deployment.host or None) if deployment.engine_url else None,
    )
