"""No error that stays is tried again: every code of the register, told by an agent on each path."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from events.messages import Failure, ImageFailed, TarRequested
from services.core.deployments.agent_messages import FINAL_OFFERS
from services.core.deployments.deployment import Deployment
from services.core.deployments.facts import ImageFacts
from services.core.deployments.transfer_start import admit
from services.core.deployments.transition_builder import OfferEffect
from services.core.deployments.transitions import FromAgent, agent_said
from services.errors.register import REGISTER
from tests.unit.services.core.deployments.stories import (
    HOST,
    NOW,
    POLICY,
    REGISTRY,
    only,
    opened,
    said,
    seen,
)

FINAL = [entry.code for entry in REGISTER.values() if not entry.retryable]
OTHER = [entry.code for entry in REGISTER.values() if entry.retryable]
_NO_SOURCE = Failure(code="no_source", message="nowhere", retryable=True)


@dataclass
class Tries:
    """How often each way was taken until the image had failed."""

    pulls: int = 0
    archives: int = 0
    error: Failure | None = None


def _tried(failure: Failure, *, asks: bool) -> Tries:
    """All that a deployment tries with an agent that meets `failure` every time; `asks`: it asks for a tar then."""
    deployment, now, tries = opened(), NOW, Tries()
    for _ in range(200):
        image = only(deployment)
        if image.ended:
            tries.error = image.error
            return tries
        if image.state == "resolving":
            now += timedelta(seconds=60)
            deployment = seen(deployment, ImageFacts(host=HOST, registry=REGISTRY), at=now).deployment
        elif image.state == "queued":
            deployment = admit(deployment, {0: REGISTRY}, now, POLICY).deployment
        else:
            deployment = _answered(deployment, failure, now, tries, asks=asks)
    raise AssertionError("it never ends")


def _answered(deployment: Deployment, failure: Failure, now: datetime, tries: Tries, *, asks: bool) -> Deployment:
    image, ident = only(deployment), deployment.transfer_id(0)
    answer: FromAgent = ImageFailed(transfer_id=ident, error=failure)
    if image.state == "falling_back":
        answer = TarRequested(transfer_id=ident, reason=_NO_SOURCE)
    elif asks:
        answer = TarRequested(transfer_id=ident, reason=failure)
    tries.pulls += image.state == "pulling"
    step = agent_said(deployment, answer, now, POLICY)
    tries.archives += len(said(step, OfferEffect))
    return step.deployment


@pytest.mark.parametrize("retryable", [False, True])
@pytest.mark.parametrize("code", FINAL)
def test_what_stays_is_tried_once_on_each_path(code: str, *, retryable: bool) -> None:
    """Whatever the agent says of it: at most a pull, then an archive, and the end has the reason."""
    failure = Failure(code=code, message="so it is", retryable=retryable)
    tries = _tried(failure, asks=False)
    assert (tries.pulls, tries.archives <= 1, tries.error) == (1, True, failure)


@pytest.mark.parametrize("code", FINAL)
def test_archives_are_not_offered_over_and_over(code: str) -> None:
    """An agent that asks for one more archive gets one without its layers and a whole one."""
    tries = _tried(Failure(code=code, message="so it is"), asks=True)
    assert tries.archives <= FINAL_OFFERS
    assert tries.error is not None
    assert tries.error.code == code


@pytest.mark.parametrize("code", OTHER)
def test_what_may_change_is_tried_again(code: str) -> None:
    """As often as the policy says, unless the agent that met it has given up."""
    tries = _tried(Failure(code=code, message="for now", retryable=True), asks=False)
    assert tries.pulls == POLICY.attempts
    assert _tried(Failure(code=code, message="enough", retryable=False), asks=False).pulls == 1
