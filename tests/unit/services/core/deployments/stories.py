"""Deployments of one image in every state, and what the tests of the state machine ask with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from events.messages import (
    DeploymentRequested,
    Failure,
    Layer,
    TarRequested,
)
from services.core.deployments.deployment import Deployment, ImageState, Policy
from services.core.deployments.evaluation import due, evaluate
from services.core.deployments.facts import AgentFacts, Facts, HostImage, ImageFacts, RegistryImage
from services.core.deployments.transfer_start import admit
from services.core.deployments.transition_builder import (
    Effect,
    Transition,
)
from services.core.deployments.transitions import (
    agent_said,
    asked,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


POLICY = Policy()


WANTED, OTHER, LAYER = (f"sha256:{digit * 64}" for digit in "12a")


HOST = HostImage(image_id=WANTED, diff_ids=(LAYER,), size_bytes=10, platform="linux/amd64")


REGISTRY = RegistryImage(
    source="registry:5000/app@sha256:9",
    image_id=WANTED,
    diff_ids=(LAYER,),
    layers=(Layer(digest=LAYER, diff_id=LAYER, size_bytes=10),),
    platform="linux/amd64",
)


UP, DOWN = AgentFacts(alive=True, engine_id="e1", platform="linux/amd64"), AgentFacts(alive=False)


BROKEN = Failure(code="transfer_failed", message="it broke off", retryable=True)


FATAL = Failure(code="bad_archive", message="that is none", retryable=False)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def opened() -> Deployment:
    request = DeploymentRequested(deployment_id="d1", range_id="r1", images=("app:1",))
    return asked(request, ("docker.io/library/app:1",), None, correlation_id="c", now=NOW, policy=POLICY).deployment


def seen(deployment: Deployment, facts: ImageFacts, *, agent: AgentFacts = UP, at: datetime = NOW) -> Transition:
    """One evaluation with the same facts about every image."""
    return evaluate(deployment, Facts(agent=agent, images=dict.fromkeys(due(deployment, at), facts)), at, POLICY)


def queued(*, by_tar: bool = False, agent: AgentFacts = UP) -> Deployment:
    facts = ImageFacts(host=HOST, registry_away="refused") if by_tar else ImageFacts(host=HOST, registry=REGISTRY)
    return seen(opened(), facts, agent=agent).deployment


def pushing() -> Deployment:
    return seen(opened(), ImageFacts(host=HOST)).deployment


def working(state: str = "pulling", at: datetime = NOW) -> Deployment:
    """A deployment whose transfer is under way in one of the three states in which the engine works."""
    found = admit(queued(by_tar=state == "falling_back"), {0: REGISTRY}, at, POLICY).deployment
    if state == "loading":
        found = agent_said(found, TarRequested(transfer_id="d1.0.1", reason=BROKEN), at, POLICY).deployment
    return found


def only(deployment: Deployment) -> ImageState:
    (image,) = deployment.images
    return image


def said(step: Transition, kind: type[Effect]) -> list[Effect]:
    return [effect for effect in step.effects if isinstance(effect, kind)]


def wanting(*images: str, **more: Any) -> DeploymentRequested:
    return replace(DeploymentRequested(deployment_id="d1", range_id="r1", images=images), **more)


def recorded(request: DeploymentRequested, refusal: Failure | None = None) -> Deployment:
    references = () if refusal else ("docker.io/library/app:1",)
    return asked(request, references, refusal, correlation_id="c", now=NOW, policy=POLICY).deployment


def mounting(at: datetime = NOW) -> Deployment:
    """A deployment whose layers are being mounted."""
    return admit(queued(), {0: REGISTRY}, at, POLICY, mountable="containerd").deployment
