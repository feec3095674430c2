"""Requests of one small image, as the deployer's tests make them."""

from __future__ import annotations

from events.messages import DeploymentRequested

APP = "docker.io/library/app:1"
BASE = b"base" * 100


def request(deployment_id: str = "d1", range_id: str = "r0", *images: str, **more: object) -> DeploymentRequested:
    return DeploymentRequested(
        deployment_id=deployment_id,
        range_id=range_id,
        images=images or ("app:1",),
        **more,  # type: ignore[arg-type]
    )
