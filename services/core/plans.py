"""How large a plan may be: an announcement of images that will be needed, and of the ranges that will need them."""

from __future__ import annotations

from events.messages import DeploymentPlanned
from services.core.deployment import Policy

RANGES_LIMIT = 5000


def plan_refusal(plan: DeploymentPlanned, policy: Policy) -> str | None:
    """Why a plan is refused: it has the images of one deployment at most."""
    if len(plan.images) > policy.images:
        return f"{len(plan.images)} images in one plan, at most {policy.images} are possible: make several plans"
    if len(plan.range_ids) > RANGES_LIMIT:
        return f"{len(plan.range_ids)} ranges in one plan, at most {RANGES_LIMIT} are possible: make several plans"
    return None
