"""What follows from facts: where the content is, what a push came to, how long silence lasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from events.messages import (
    DeploymentFailed,
    DeploymentRequested,
    Failure,
    ImageFailed,
    Provenance,
    PullRequested,
)
from services.core.deployments.deployment import Deployment, ImageState
from services.core.deployments.evaluation import due, evaluate
from services.core.deployments.facts import AgentFacts, Facts, HostImage, ImageFacts
from services.core.deployments.transfer_start import admit
from services.core.deployments.transition_builder import (
    CommandEffect,
    LogEffect,
    PublishEffect,
    PushEffect,
    TimerEffect,
    Transition,
)
from services.core.deployments.transitions import (
    agent_said,
    asked,
    cancelled,
    push_ended,
)
from tests.unit.services.core.deployments.stories import (
    BROKEN,
    HOST,
    LAYER,
    NOW,
    OTHER,
    POLICY,
    REGISTRY,
    UP,
    WANTED,
    later,
    only,
    opened,
    pushing,
    queued,
    said,
    seen,
    working,
)


def test_a_request_is_looked_at_at_once() -> None:
    """A new deployment sets its first timer for now."""
    request = DeploymentRequested(deployment_id="d1", range_id="r1", images=("app:1",))
    step = asked(request, ("docker.io/library/app:1",), None, correlation_id="c", now=NOW, policy=POLICY)
    assert step.effects == (TimerEffect(NOW),)
    assert due(step.deployment, NOW) == [0]


def test_what_the_registry_has_waits_for_a_slot() -> None:
    """The registry has the host's content: no push."""
    step = seen(opened(), ImageFacts(host=HOST, registry=REGISTRY))
    assert only(step.deployment).state == "queued"
    assert only(step.deployment).source == REGISTRY.source
    assert said(step, PushEffect) == []


def test_what_only_the_registry_has_is_enough() -> None:
    """The host's engine is away or forgot it: the registry's content is the wanted one."""
    found = seen(opened(), ImageFacts(registry=REGISTRY, host_away="stopped")).deployment
    assert (only(found).state, only(found).image_id) == ("queued", WANTED)


def test_what_the_registry_lacks_is_pushed() -> None:
    """Other content under the tag counts as lacking: the host's content decides."""

    from msgspec.structs import replace as _  # noqa: F401  the state is a Struct, facts are dataclasses

    step = seen(opened(), ImageFacts(host=HOST, registry=dataclasses.replace(REGISTRY, image_id=OTHER)))
    assert only(step.deployment).state == "pushing"
    assert said(step, PushEffect) == [PushEffect("docker.io/library/app:1", WANTED)]


def test_a_push_that_ended_before_anybody_knew_who_waits_is_found_soon() -> None:
    """Its end wakes who is known to wait; whoever began to wait in the same moment looks once more by itself."""
    step = seen(opened(), ImageFacts(host=HOST))
    assert said(step, TimerEffect) == [TimerEffect(later(POLICY.missed_seconds))]
    assert POLICY.missed_seconds < POLICY.check_seconds
    again = seen(step.deployment, ImageFacts(host=HOST), at=later(POLICY.missed_seconds))
    assert only(again.deployment).state == "pushing"
    assert said(again, TimerEffect) == [TimerEffect(later(POLICY.missed_seconds + POLICY.check_seconds))]


def test_what_is_nowhere_fails_at_once() -> None:
    """Neither has it and both answered: nothing to wait for."""
    step = seen(opened(), ImageFacts())
    (end,) = said(step, PublishEffect)
    assert isinstance(end, PublishEffect)
    assert isinstance(end.message, DeploymentFailed)
    assert end.message.images[0].error is not None
    assert end.message.images[0].error.code == "image_not_found"


def test_with_both_away_it_waits_and_then_gives_up() -> None:
    """Host engine and registry away: looked at again, failed with both reasons after the patience."""
    away = ImageFacts(host_away="engine stopped", registry_away="registry stopped")
    waiting = seen(opened(), away).deployment
    assert only(waiting).state == "resolving"
    found = seen(waiting, away, at=later(POLICY.resolve_seconds)).deployment
    assert only(found).error == Failure(
        code="unavailable",
        message="docker.io/library/app:1 could not be looked up: engine stopped; registry stopped: bring that back, "
        "then retry",
        retryable=True,
    )


def test_a_lookup_that_has_to_wait_says_so_once() -> None:
    """The first evaluation logs why nothing happens; later ones do not repeat it, and a good one forgets it."""
    away = ImageFacts(host_away="engine stopped")
    step = seen(opened(), away)
    text = "images cannot be looked up (engine stopped): waiting 120 s for that to come back"
    assert said(step, LogEffect) == [LogEffect(text)]
    step = seen(step.deployment, away, at=later(POLICY.check_seconds))
    assert said(step, LogEffect) == []
    found = seen(step.deployment, ImageFacts(host=HOST, registry=REGISTRY), at=later(2 * POLICY.check_seconds))
    assert (only(found.deployment).state, only(found.deployment).error) == ("queued", None)


@pytest.mark.parametrize("state", ["pushing", "queued", "pulling", "falling_back", "loading"])
def test_a_platform_learnt_late_is_compared_then(state: str) -> None:
    """The range tells what it runs after its image was resolved: what it cannot run is called off, and not pulled."""
    at = later(1)
    before = pushing() if state == "pushing" else queued() if state == "queued" else working(state)
    arm = AgentFacts(alive=True, engine_id="e1", platform="linux/arm64")
    step = seen(before, ImageFacts(), agent=arm, at=at)
    error = only(step.deployment).error
    assert error is not None
    assert error.code == "platform_mismatch"
    assert (said(step, CommandEffect) != []) is (state not in ("pushing", "queued"))


def test_a_platform_the_range_cannot_run_is_refused() -> None:
    """An image for another architecture never leaves the host."""
    agent = AgentFacts(alive=True, engine_id="e1", platform="linux/arm64")
    found = seen(opened(), ImageFacts(host=HOST, registry=REGISTRY), agent=agent).deployment
    error = only(found).error
    assert error is not None
    assert error.code == "platform_mismatch"


def test_a_push_that_ends_well_is_queued() -> None:
    """Told that the push ended, the next evaluation finds it in the registry."""
    told = push_ended(pushing(), "docker.io/library/app:1", None, NOW)
    assert only(seen(told, ImageFacts(registry=REGISTRY)).deployment).state == "queued"


def test_a_push_that_fails_goes_by_tar() -> None:
    """The registry will not get it: the archive will do."""
    told = push_ended(pushing(), "docker.io/library/app:1", BROKEN, NOW)
    found = seen(told, ImageFacts()).deployment
    assert (only(found).state, only(found).by_tar) == ("queued", True)


def test_a_push_that_failed_once_is_not_waited_for_again() -> None:
    """The archive broke off and the registry still lacks the content: the next attempt is an archive's at once."""
    told = push_ended(pushing(), "docker.io/library/app:1", BROKEN, NOW)
    found = admit(seen(told, ImageFacts()).deployment, {0: None}, NOW, POLICY).deployment
    found = agent_said(found, ImageFailed(transfer_id="d1.0.1", error=BROKEN), NOW, POLICY).deployment
    step = seen(found, ImageFacts(host=HOST), at=later(5))
    assert (only(step.deployment).state, only(step.deployment).by_tar) == ("queued", True)
    assert said(step, PushEffect) == []


def test_a_registry_that_went_away_while_pushing_is_not_waited_for() -> None:
    """The next evaluation finds the registry away: by tar."""
    found = seen(pushing(), ImageFacts(registry_away="refused"), at=later(POLICY.check_seconds)).deployment
    assert (only(found).state, only(found).by_tar) == ("queued", True)


def test_a_silent_push_goes_by_tar_and_a_moving_one_is_waited_for() -> None:
    """Without progress for the patience the push counts as stalled; progress prolongs it."""
    at = later(POLICY.push_patience_seconds)
    assert only(seen(pushing(), ImageFacts(push_heard_at=at), at=at).deployment).state == "pushing"
    assert only(seen(pushing(), ImageFacts(), at=at).deployment).by_tar


def test_content_the_host_cannot_name_and_nobody_pushes_fails() -> None:
    """A host that does not tell the config digest depends on the push."""
    nameless = HostImage(image_id=None, diff_ids=(LAYER,), size_bytes=10, platform="linux/amd64")
    waiting = seen(opened(), ImageFacts(host=nameless)).deployment
    found = seen(waiting, ImageFacts(host=nameless), at=later(POLICY.push_patience_seconds)).deployment
    assert only(found).state == "failed"
    found = seen(waiting, ImageFacts(host=nameless, registry=REGISTRY), at=later(10)).deployment
    assert (only(found).state, only(found).image_id) == ("queued", WANTED)


def test_admitted_by_the_registry() -> None:
    """A free slot: the agent is told what to pull, with its layers."""
    step = admit(queued(), {0: REGISTRY}, NOW, POLICY)
    (told,) = said(step, CommandEffect)
    assert isinstance(told, CommandEffect)
    message = told.message
    assert isinstance(message, PullRequested)
    assert (message.transfer_id, message.source, message.layers) == ("d1.0.1", REGISTRY.source, REGISTRY.layers)
    assert only(step.deployment).state == "pulling"


def test_admitted_by_tar() -> None:
    """Without a registry the agent is told to ask for a tar."""
    step = admit(queued(by_tar=True), {0: None}, NOW, POLICY)
    (told,) = said(step, CommandEffect)
    assert isinstance(told, CommandEffect)
    assert isinstance(told.message, PullRequested)
    assert told.message.source is None
    assert only(step.deployment).state == "falling_back"


def test_the_wanted_content_may_be_gone_at_a_later_attempt() -> None:
    """Tried again, neither host nor registry has it any more: what the name has now is taken, and if that is nothing,
    it has failed, with what to do."""
    found = agent_said(working(), ImageFailed(transfer_id="d1.0.1", error=BROKEN), NOW, POLICY).deployment
    found = seen(found, ImageFacts(), at=later(5)).deployment
    assert (only(found).state, only(found).image_id, only(found).deadline) == ("resolving", None, later(5))
    found = seen(found, ImageFacts(), at=later(5)).deployment
    error = only(found).error
    assert error is not None
    assert error.code == "image_not_found"


def test_pinned_content_that_is_gone_is_not_replaced() -> None:
    """What a range lost is given again as it was, or not at all."""
    found = agent_said(working(), ImageFailed(transfer_id="d1.0.1", error=BROKEN), NOW, POLICY).deployment
    found = replace(found, images=(replace(only(found), pinned=True),))
    error = only(seen(found, ImageFacts(), at=later(5)).deployment).error
    assert error is not None
    assert WANTED in error.message


def test_nothing_of_an_ended_deployment_is_admitted() -> None:
    """A ticket may still lie in the queue when its deployment ended."""
    ended = cancelled(queued(), "", NOW, POLICY).deployment
    assert admit(ended, {0: REGISTRY}, NOW, POLICY) == Transition(ended)


def test_timers_that_fire_early_by_another_clock_count() -> None:
    """Within the skew, the moment waited for has come; long before it nothing is due."""
    found = working()
    assert due(found, later(POLICY.check_seconds - 1)) == [0]
    assert due(found, later(POLICY.check_seconds - 5)) == []


SIGNED = Provenance(manifest_digest=OTHER, actor="ana", source="cli@h", signed=True)
STRICT = dataclasses.replace(POLICY, signatures=True)


def _strictly(deployment: Deployment, facts: ImageFacts, at: float = 0) -> ImageState:
    moment = later(at)
    found = Facts(agent=UP, images=dict.fromkeys(due(deployment, moment), facts))
    return only(evaluate(deployment, found, moment, STRICT).deployment)


def test_a_signed_image_is_deployed_and_its_origin_is_told() -> None:
    """The outcome says which manifest it was and who had it pushed."""
    image = _strictly(opened(), ImageFacts(host=HOST, registry=REGISTRY, provenance=SIGNED))
    assert image.state == "queued"
    assert image.outcome().provenance == SIGNED


@pytest.mark.parametrize("before", [opened, pushing])
def test_an_image_without_a_right_signature_is_not_deployed(before: Callable[[], Deployment]) -> None:
    """Whether it was there already or was pushed for this deployment: it fails, and nothing is asked of the range."""
    plain = Provenance(manifest_digest=OTHER)
    facts = ImageFacts(host=HOST, registry=REGISTRY, provenance=plain, unsigned="there is no signature")
    image = _strictly(before(), facts, at=0 if before is opened else POLICY.check_seconds)
    assert image.state == "failed"
    assert image.error is not None
    assert (image.error.code, image.error.retryable) == ("not_signed", False)
    assert "there is no signature" in image.error.message


def test_an_image_whose_signature_nobody_can_tell_does_not_go_by_tar() -> None:
    """While the registry is away it waits, and then fails; what was pushed nowhere fails at once."""
    away = ImageFacts(host=HOST, registry_away="refused")
    assert _strictly(opened(), away).state == "resolving"
    late = _strictly(opened(), away, at=POLICY.resolve_seconds)
    assert late.error is not None
    assert late.error.code == "unavailable"
    given_up = replace(only(opened()), push_failed=True)
    nowhere = _strictly(replace(opened(), images=(given_up,)), ImageFacts(host=HOST))
    assert nowhere.error is not None
    assert nowhere.error.code == "not_signed"


def test_an_image_whose_signature_was_seen_may_go_by_tar() -> None:
    """The same content, after the registry went away."""
    known = replace(only(opened()), image_id=WANTED, provenance=SIGNED)
    image = _strictly(replace(opened(), images=(known,)), ImageFacts(host=HOST, registry_away="refused"))
    assert (image.state, image.by_tar) == ("queued", True)


def test_signatures_are_nobodys_matter_where_none_is_asked_for() -> None:
    """Without keys an image goes as before, unsigned and by tar."""
    plain = Provenance(manifest_digest=OTHER)
    facts = ImageFacts(host=HOST, registry=REGISTRY, provenance=plain)
    assert only(seen(opened(), facts).deployment).outcome().provenance == plain
    assert only(seen(opened(), ImageFacts(host=HOST, registry_away="refused")).deployment).state == "queued"
