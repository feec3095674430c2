"""Policy of the deployer, made from the settings."""

from __future__ import annotations

from dataclasses import replace

from services.core.deployments.deployment import Policy
from services.settings import Settings


def policy_of(settings: Settings, limits: Policy) -> Policy:
    """The deployer's policy: limits from the settings, the others from `limits`."""
    return replace(
        limits,
        push_patience_seconds=settings.push_wait_seconds,
        silence_seconds=2 * settings.stall_seconds,
        agent_grace_seconds=settings.agent_grace_seconds,
        pulls_per_host=settings.extractions_limit,
        pulls_per_range=settings.pulls_per_range_limit,
        large_bytes=settings.large_image_bytes,
        signatures=bool(settings.signature_keys),
    )
