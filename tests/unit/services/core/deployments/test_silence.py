"""Agents that are away, come back or say nothing, and ranges that are made anew."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from events.messages import (
    Failure,
    ImageFailed,
    ImageReady,
    TransferCancelled,
)
from services.core.deployments.facts import AgentFacts, ImageFacts
from services.core.deployments.transition_builder import (
    CommandEffect,
    LogEffect,
    PushEffect,
)
from services.core.deployments.transitions import (
    agent_back,
    agent_said,
    push_ended,
)
from tests.unit.services.core.deployments.stories import (
    BROKEN,
    DOWN,
    HOST,
    NOW,
    POLICY,
    REGISTRY,
    WANTED,
    later,
    mounting,
    only,
    opened,
    queued,
    said,
    seen,
    working,
)

CONTESTED = AgentFacts(alive=True, engine_id="e2", contested="two agents speak for range r1, on the engines e1 and e2")


def test_a_range_without_an_agent_waits_and_fails() -> None:
    """Said at once, failed with that reason after the grace."""
    waiting = queued(agent=DOWN)
    assert only(waiting).absent_since == NOW
    found = seen(waiting, ImageFacts(), agent=DOWN, at=later(POLICY.agent_grace_seconds)).deployment
    error = only(found).error
    assert error is not None
    assert error.code == "no_agent"


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_an_agent_that_vanishes_keeps_its_slot_and_fails_after_the_grace(state: str) -> None:
    """The engine goes on without its agent, so its slot is not given to others; after the grace it has failed."""
    found = seen(working(state), ImageFacts(), agent=DOWN, at=later(POLICY.check_seconds)).deployment
    assert only(found).absent_since == later(POLICY.check_seconds)
    assert only(found).holds_slot
    found = seen(
        found, ImageFacts(), agent=DOWN, at=later(POLICY.check_seconds + POLICY.agent_grace_seconds)
    ).deployment
    assert only(found).state == "failed"


def test_what_waits_for_a_slot_steps_aside_once_the_agent_is_found_missing() -> None:
    """One transfer is found without its agent: the other images of the deployment take no slot either."""
    before = working()
    waiting = replace(only(queued()), reference="docker.io/library/other:1")
    both = replace(before, images=(only(before), waiting))
    found = seen(both, ImageFacts(), agent=DOWN, at=later(POLICY.check_seconds)).deployment
    assert not found.images[1].waits_for_slot
    found = agent_back(found, "e1", later(POLICY.check_seconds + 5), POLICY).deployment
    assert found.images[1].waits_for_slot


def test_a_missing_agent_is_said_at_the_first_look() -> None:
    """Also where the image has to be pushed first: the grace runs meanwhile."""
    step = seen(opened(), ImageFacts(host=HOST), agent=DOWN)
    assert only(step.deployment).state == "pushing"
    assert said(step, PushEffect) == [PushEffect("docker.io/library/app:1", WANTED)]
    assert said(step, LogEffect) == [LogEffect("range r1 has no live agent: waiting 60 s for it")]


def test_a_long_push_does_not_prolong_the_grace() -> None:
    """The push makes progress, the agent is away: failed after the grace, counted from the first evaluation."""
    found = seen(opened(), ImageFacts(host=HOST), agent=DOWN).deployment
    at = later(POLICY.agent_grace_seconds - 1)
    found = seen(found, ImageFacts(push_heard_at=at), agent=DOWN, at=at).deployment
    assert (only(found).state, only(found).deadline) == ("pushing", later(POLICY.agent_grace_seconds))
    at = later(POLICY.agent_grace_seconds)
    error = only(seen(found, ImageFacts(push_heard_at=at), agent=DOWN, at=at).deployment).error
    assert error is not None
    assert error.code == "no_agent"


def test_a_push_that_ends_within_the_grace_does_not_begin_it_anew() -> None:
    """Pushed while the agent is away: what is left of the grace is waited for."""
    found = seen(opened(), ImageFacts(host=HOST), agent=DOWN).deployment
    found = push_ended(found, "docker.io/library/app:1", None, later(50))
    found = seen(found, ImageFacts(registry=REGISTRY), agent=DOWN, at=later(50)).deployment
    image = only(found)
    assert (image.state, image.absent_since, image.deadline) == ("queued", NOW, later(POLICY.agent_grace_seconds))


def test_an_agent_that_comes_while_its_image_is_pushed_is_waited_for_no_more() -> None:
    """The grace is over with the agent's coming, not with the push."""
    found = seen(opened(), ImageFacts(host=HOST), agent=DOWN).deployment
    found = agent_back(found, "e1", later(20), POLICY).deployment
    at = later(POLICY.agent_grace_seconds)
    assert only(seen(found, ImageFacts(push_heard_at=at), at=at).deployment).state == "pushing"


def test_a_range_that_nobody_knows_is_named_as_such() -> None:
    """A mistyped name is told apart from a range that is down."""
    nobody = AgentFacts(alive=False, known=False)
    found = seen(queued(agent=nobody), ImageFacts(), agent=nobody, at=later(POLICY.agent_grace_seconds)).deployment
    text = "range r1 never announced itself: check the name, or start its agent, then retry"
    assert only(found).error == Failure(code="no_agent", message=text, retryable=True)


def test_an_agent_that_comes_back_goes_on() -> None:
    """Back within the grace, with the same engine: its own work goes on."""
    absent = seen(working(), ImageFacts(), agent=DOWN, at=later(POLICY.check_seconds)).deployment
    found = agent_back(absent, "e1", later(20), POLICY).deployment
    assert (only(found).state, only(found).absent_since) == ("pulling", None)


@pytest.mark.parametrize("state", ["pulling", "mounting"])
def test_an_agent_that_comes_and_goes_does_not_keep_a_transfer_for_ever(state: str) -> None:
    """Away for less than the grace and back for less than the silence, again and again: that counts as failing."""
    found, at = (mounting() if state == "mounting" else working()), 0.0
    while only(found).attempt == 1:
        at += POLICY.check_seconds
        found = seen(found, ImageFacts(), agent=DOWN, at=later(at)).deployment
        assert only(found).absent_since == later(at)
        at += 20
        step = agent_back(found, "e1", later(at), POLICY)
        found = step.deployment
    assert at <= (POLICY.returns + 1) * (POLICY.check_seconds + 20)
    assert said(step, CommandEffect) == [
        CommandEffect(TransferCancelled(transfer_id="d1.0.1", reason="the agent comes and goes"))
    ]
    error = only(found).error
    assert error is not None
    assert (error.code, only(found).returns) == ("agent_unstable", 0)
    assert f"went away {POLICY.returns + 1} times" in error.message


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_a_recreated_range_starts_over(state: str) -> None:
    """Another engine: what was under way is begun again, and word of the old engine is not believed."""
    step = agent_back(working(state), "e2", NOW, POLICY)
    assert only(step.deployment).state == "resolving"
    message = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled")
    assert only(agent_said(step.deployment, message, NOW, POLICY).deployment).state == "resolving"


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading", "ready"])
def test_a_range_recreated_for_ever_fails(state: str) -> None:
    """A deployment ends even if the range never holds still."""

    before = working(state if state != "ready" else "pulling")
    image = replace(only(before), recreations=POLICY.recreations, state=state)
    other = replace(only(opened()), reference="docker.io/library/other:1")
    found = agent_back(replace(before, images=(image, other)), "e2", NOW, POLICY).deployment
    error = found.images[0].error
    assert error is not None
    assert error.code == "range_unstable"


def test_what_was_ready_in_a_recreated_range_is_brought_again() -> None:
    """Within an open deployment, ready is only ready while the engine lives."""

    before = working()
    ready = replace(only(before), state="ready")
    found = agent_back(replace(before, images=(ready, only(before))), "e2", NOW, POLICY).deployment
    assert [image.state for image in found.images] == ["resolving", "resolving"]


@pytest.mark.parametrize("state", ["mounting", "pulling", "falling_back", "loading", "ready"])
def test_while_two_agents_speak_for_a_range_its_images_wait_and_then_fail(state: str) -> None:
    """Also what is said to be there: nobody knows on which engine. No word of an earlier attempt is believed."""
    before = mounting() if state == "mounting" else working("pulling" if state == "ready" else state)
    images = (replace(only(before), state=state), only(opened()))
    there = ImageFacts(host=HOST, registry=REGISTRY)
    step = seen(replace(before, images=images), there, agent=CONTESTED)
    image = step.deployment.images[0]
    assert (image.state, image.attempt, image.absent_since) == ("resolving", 2, NOW)
    assert said(step, LogEffect) == [LogEffect(f"{CONTESTED.contested}: waiting 60 s for that")]
    message = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled")
    assert agent_said(step.deployment, message, NOW, POLICY).deployment.images[0].state == "resolving"
    found = seen(step.deployment, there, agent=CONTESTED).deployment
    assert {image.state for image in found.images} == {"queued"}
    found = seen(found, ImageFacts(), agent=CONTESTED, at=later(POLICY.agent_grace_seconds)).deployment
    assert {image.error.code for image in found.images if image.error is not None} == {"range_contested"}
    assert found.state == "failed"


def test_what_waited_for_the_second_agent_to_end_goes_on() -> None:
    """With the engine that is left."""
    found = seen(seen(working(), ImageFacts(), agent=CONTESTED).deployment, ImageFacts(host=HOST, registry=REGISTRY))
    assert (only(found.deployment).state, only(found.deployment).absent_since) == ("queued", None)
    assert found.deployment.engine_id == "e1"


def test_silence_counts_as_stalled_and_progress_does_not() -> None:
    """An agent that is alive and says nothing of the transfer for long has lost it: called off and tried again."""
    at = later(POLICY.silence_seconds)
    assert only(seen(working(), ImageFacts(heard_at=at, advanced_at=at), at=at).deployment).state == "pulling"
    step = seen(working(), ImageFacts(), at=at)
    assert said(step, CommandEffect) == [
        CommandEffect(TransferCancelled(transfer_id="d1.0.1", reason="it does not get on"))
    ]
    assert only(step.deployment).attempt == 2


def test_words_without_getting_further_count_as_stalled() -> None:
    """A range that repeats itself holds its slot for a time that depends on the size, not for ever."""
    found = working()
    size = 400 * POLICY.standing_bytes_per_second
    large = replace(found, images=(replace(only(found), size_bytes=size),))
    early, late = later(POLICY.silence_seconds + 1), later(POLICY.silence_seconds + 401)
    assert only(seen(found, ImageFacts(heard_at=early), at=early).deployment).attempt == 2
    assert only(seen(large, ImageFacts(heard_at=early), at=early).deployment).attempt == 1
    ended = only(seen(large, ImageFacts(heard_at=late), at=late).deployment)
    assert ended.error is not None
    assert (ended.attempt, ended.error.code) == (2, "stalled")


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_a_transfer_that_always_gets_further_and_never_ends_is_bounded(state: str) -> None:
    """Made-up progress keeps a slot no longer than the image could take at the slowest; then it counts as stalled."""
    found = working(state)
    limit = POLICY.attempt_limit_seconds(only(found).size_bytes)
    for seconds in range(0, int(limit) + 600, 600):
        at = later(seconds)
        found = seen(found, ImageFacts(heard_at=at, advanced_at=at), at=at).deployment
        assert only(found).attempt == (1 if seconds < limit else 2)


def test_a_new_attempt_has_its_own_time() -> None:
    """What an attempt used up is not charged to the next one."""
    found = agent_said(working(), ImageFailed(transfer_id="d1.0.1", error=BROKEN), NOW, POLICY).deployment
    image = only(found)
    assert (image.begun_at, image.heard_at, image.advanced_at) == (None, None, None)
