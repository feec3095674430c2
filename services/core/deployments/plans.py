"""Plans: an announcement of images that will be needed, and of the ranges that will need them; how far one is.

{prefix}:plan:<plan_id>      Plan, what the deployer made of it
{prefix}:planned:<range_id>  PlannedRange, the plans that name a range which was away then
{prefix}:index:plans         plan ids by the time they were announced
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

import msgspec

from events.messages import DeploymentPlanned
from events.records import Key
from services.core.deployments.deployment import Policy

RANGES_LIMIT = 5000

PlanState = Literal["announced", "under way", "done", "incomplete"]
"""`announced`: no deployer has taken it yet. `incomplete`: nothing goes on, and something of it is not there."""


@dataclass(frozen=True, slots=True)
class PlanKeys:
    """Names under a key prefix."""

    prefix: str

    def record(self, plan_id: str) -> Key[Plan]:
        return Key(f"{self.prefix}:plan:{plan_id}", Plan)

    def planned(self, range_id: str) -> Key[PlannedRange]:
        return Key(f"{self.prefix}:planned:{range_id}", PlannedRange)

    @property
    def all(self) -> str:
        return f"{self.prefix}:index:plans"


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plan as the deployer took it.

    `deployments` are those it made when it was announced, by range. Ranges that were unavailable get theirs when their
    agent comes up (`PlannedRange`), under the same id (`plan_deployment_id`).
    """

    plan_id: str
    images: tuple[str, ...]
    range_ids: tuple[str, ...] = ()
    platform: str | None = None
    announced_at: datetime
    deployments: dict[str, str] = {}

    def is_same(self, images: Iterable[str], said: DeploymentPlanned) -> bool:
        """Whether `said` (its `images` in full) announces this again."""
        return (self.images, set(self.range_ids), self.platform) == (tuple(images), set(said.range_ids), said.platform)


class PlannedRange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Plans that name a range which was unavailable when they were announced: its deployments are still to be made."""

    range_id: str
    plan_ids: tuple[str, ...] = ()


def plan_deployment_id(plan_id: str, range_id: str) -> str:
    """The id of a plan's deployment to a range, which every replica computes alike."""
    return f"preheat-{uuid5(NAMESPACE_URL, f'{plan_id}/{range_id}')}"


def plan_refusal(plan: DeploymentPlanned, policy: Policy) -> str | None:
    """Why a plan is refused: it has the images of one deployment at most."""
    if len(plan.images) > policy.images:
        return f"{len(plan.images)} images in one plan, at most {policy.images} are possible: make several plans"
    if len(plan.range_ids) > RANGES_LIMIT:
        return f"{len(plan.range_ids)} ranges in one plan, at most {RANGES_LIMIT} are possible: make several plans"
    return None


def plan_state(registry: Iterable[str], ranges: Iterable[str]) -> PlanState:
    """How far a plan is that a deployer took, from where each image (`waiting`, `there`, `failed`) and range stands."""
    images, ends = set(registry), set(ranges)
    if "waiting" in images or ends - {"succeeded", "failed", "cancelled", "away"}:
        return "under way"
    return "done" if images <= {"there"} and ends <= {"succeeded"} else "incomplete"
