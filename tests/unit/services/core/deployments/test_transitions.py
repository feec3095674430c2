"""What a message does to a deployment: said by the agent, cancelled, tried again, asked for again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from events.messages import (
    DeploymentCancelled,
    DeploymentSucceeded,
    Failure,
    ImageFailed,
    ImageReady,
    TarRequested,
)
from services.core.deployments.deployment import parse_transfer_id
from services.core.deployments.facts import ImageFacts
from services.core.deployments.transition_builder import (
    CommandEffect,
    OfferEffect,
    PublishEffect,
    Transition,
)
from services.core.deployments.transitions import (
    agent_said,
    answered_again,
    cancelled,
    commands_refused,
    refusal_of,
    retried,
    same_request,
)
from tests.unit.services.core.deployments.stories import (
    BROKEN,
    FATAL,
    HOST,
    LAYER,
    NOW,
    OTHER,
    POLICY,
    REGISTRY,
    WANTED,
    later,
    mounting,
    only,
    opened,
    pushing,
    queued,
    recorded,
    said,
    seen,
    wanting,
    working,
)


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_content_reported_ends_it(state: str) -> None:
    """The engine reports the wanted content: ready, and the deployment succeeded."""
    step = agent_said(working(state), ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled"), NOW, POLICY)
    (end,) = said(step, PublishEffect)
    assert isinstance(end, PublishEffect)
    assert isinstance(end.message, DeploymentSucceeded)


@pytest.mark.parametrize("make", [opened, pushing, queued])
def test_late_content_counts_too(make: object) -> None:
    """Word of an earlier attempt about the wanted content ends what was begun over."""
    assert callable(make)

    before = make()
    image = replace(only(before), attempt=2, image_id=WANTED)
    message = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled")
    assert only(agent_said(replace(before, images=(image,)), message, NOW, POLICY).deployment).state == "ready"


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_other_content_is_a_failure(state: str) -> None:
    """The engine reports something else: tried again, never believed."""
    found = agent_said(
        working(state), ImageReady(transfer_id="d1.0.1", image_id=OTHER, how="pulled"), NOW, POLICY
    ).deployment
    assert only(found).state == "resolving"
    assert only(found).error is not None


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_a_tar_is_offered_when_asked_for(state: str) -> None:
    """The agent says what it has; the offer is made from that."""
    message = TarRequested(transfer_id="d1.0.1", reason=BROKEN, diff_ids=(LAYER,))
    step = agent_said(working(state), message, NOW, POLICY)
    assert said(step, OfferEffect) == [OfferEffect(0, "d1.0.1", (LAYER,), "docker", True)]
    assert only(step.deployment).state == "loading"


def test_a_range_cannot_have_one_image_exported_in_many_ways() -> None:
    """Of all sets of layers that it says it has, the first in an attempt counts; a whole archive can be had as well."""
    base, top = (f"sha256:{digit * 64}" for digit in "bc")
    found = replace(working("pulling"), images=(replace(only(working("pulling")), diff_ids=(base, top)),))
    offered = []
    for diff_ids, thin in (((base, OTHER), True), ((top,), True), ((base, top), False), ((top, base), True)):
        message = TarRequested(transfer_id="d1.0.1", reason=BROKEN, diff_ids=diff_ids, thin=thin)
        step = agent_said(found, message, NOW, POLICY)
        found = step.deployment
        offered += [(one.present, one.thin) for one in step.effects if isinstance(one, OfferEffect)]
    assert offered == [((base,), True), ((base,), True), ((base, top), False), ((base,), True)]


def test_what_a_range_has_raw_is_fixed_with_what_it_has() -> None:
    """Of the layers left out, as the first request of the attempt said: each other set would be another export."""
    base, top = (f"sha256:{digit * 64}" for digit in "bc")
    found = replace(working("pulling"), images=(replace(only(working("pulling")), diff_ids=(base, top)),))
    offered = []
    for raw, thin in (((base, top, OTHER), True), ((), True), ((base,), False), ((top,), True)):
        message = TarRequested(transfer_id="d1.0.1", reason=BROKEN, diff_ids=(base,), raw=raw, thin=thin)
        step = agent_said(found, message, NOW, POLICY)
        found = step.deployment
        offered += [one.raw for one in step.effects if isinstance(one, OfferEffect) and one.thin]
    assert offered == [(base,), (base,), (base,)]


def test_offers_are_bounded() -> None:
    """An agent that asks for ever counts as failing."""
    found = working("loading")
    for _ in range(POLICY.offers):
        found = agent_said(found, TarRequested(transfer_id="d1.0.1", reason=BROKEN), NOW, POLICY).deployment
    assert only(found).state == "resolving"


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_a_failure_is_tried_again_with_a_pause(state: str) -> None:
    """Something that may help is tried again after a backoff, as a new transfer."""
    found = agent_said(working(state), ImageFailed(transfer_id="d1.0.1", error=BROKEN), NOW, POLICY).deployment
    assert (only(found).state, only(found).attempt) == ("resolving", 2)
    assert only(found).deadline == later(POLICY.backoff_seconds)


def test_a_pull_that_cannot_work_goes_by_tar() -> None:
    """Trying the pull again cannot help: the next attempt is an archive's, though the registry has it."""
    found = agent_said(working(), ImageFailed(transfer_id="d1.0.1", error=FATAL), NOW, POLICY).deployment
    found = seen(found, ImageFacts(host=HOST, registry=REGISTRY)).deployment
    assert (only(found).state, only(found).by_tar) == ("queued", True)


@pytest.mark.parametrize("state", ["falling_back", "loading"])
def test_a_tar_that_cannot_work_is_the_end(state: str) -> None:
    """No other path is left: failed, with the agent's reason."""
    found = agent_said(working(state), ImageFailed(transfer_id="d1.0.1", error=FATAL), NOW, POLICY).deployment
    assert (found.state, only(found).error) == ("failed", FATAL)


def test_a_pull_for_another_platform_is_the_end() -> None:
    """Where a tar cannot help none is tried."""
    error = Failure(code="platform_mismatch", message="no")
    found = agent_said(working(), ImageFailed(transfer_id="d1.0.1", error=error), NOW, POLICY).deployment
    assert only(found).state == "failed"


def test_words_that_do_not_fit_change_nothing() -> None:
    """Another deployment's, another image's, a coming attempt's, an ended image's."""
    before = working()
    for transfer_id in ("d2.0.1", "d1.1.1", "d1.0.2", "d1.0.0", "nonsense"):
        message = ImageReady(transfer_id=transfer_id, image_id=WANTED, how="pulled")
        assert agent_said(before, message, NOW, POLICY) == Transition(before)
    ended = agent_said(before, ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled"), NOW, POLICY).deployment
    assert agent_said(ended, ImageFailed(transfer_id="d1.0.1", error=FATAL), NOW, POLICY) == Transition(ended)


@pytest.mark.parametrize(
    "make",
    [opened, pushing, queued, working, lambda: working("falling_back"), lambda: working("loading")],
)
def test_cancelling_ends_every_open_state(make: object) -> None:
    """Whatever was going on stops, and the end says so."""
    assert callable(make)
    step = cancelled(make(), "not needed", NOW, POLICY)
    (end,) = said(step, PublishEffect)
    assert isinstance(end, PublishEffect)
    assert isinstance(end.message, DeploymentCancelled)
    assert cancelled(step.deployment, "again", NOW, POLICY) == Transition(step.deployment)


@pytest.mark.parametrize("state", ["resolving", "pushing", "queued", "mounting", "pulling", "falling_back", "loading"])
def test_a_range_that_takes_no_command_ends_its_deployment(state: str) -> None:
    """In every open state, with the reason, and without another word to the range; once."""
    early = {"resolving": opened, "pushing": pushing, "queued": queued, "mounting": mounting}
    before = early[state]() if state in early else working(state)
    step = commands_refused(before, "the stream has exhausted its ids", NOW, POLICY)
    error = only(step.deployment).error
    assert (step.deployment.state, only(step.deployment).state) == ("failed", "failed")
    assert error is not None
    assert error.code == "refused"
    assert "no command can be given to range r1" in error.message
    assert "exhausted its ids" in error.message
    assert said(step, CommandEffect) == []
    assert len(said(step, PublishEffect)) == 1
    assert commands_refused(step.deployment, "again", NOW, POLICY).effects == ()


def test_retrying_a_cancelled_or_failed_deployment_begins_what_is_missing() -> None:
    """A retry resolves again; of one that succeeded only the answer is repeated."""
    for ended in (cancelled(working(), "", NOW, POLICY).deployment, seen(opened(), ImageFacts()).deployment):
        again = retried(ended, later(9), POLICY).deployment
        assert (again.open, only(again).state, again.round) == (True, "resolving", 2)
    ready = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled")
    done = agent_said(working(), ready, NOW, POLICY).deployment
    assert retried(done, NOW, POLICY) == answered_again(done)
    assert len(answered_again(done).effects) == 1


def test_the_same_request_is_known_however_its_images_are_written() -> None:
    """Images are compared in full, and all of them: a longer list that begins alike asks for more."""
    known = recorded(wanting("app:1", "b"))
    assert same_request(known, wanting("docker.io/library/app:1", "b:latest", "app:1"))
    assert same_request(known, wanting("app:1", "b", priority=9))
    for other in (
        wanting("app:1"),
        wanting("app:1", "b", "c"),
        wanting("app:1", "b", range_id="r2"),
        wanting("app:1", "b", platform="linux/arm64"),
        wanting("app:1", "b", engine_url="tcp://a:1"),
    ):
        assert not same_request(known, other)


def test_a_refused_request_is_known_again_as_well() -> None:
    """Also one of too many images to keep, and one whose reference is none."""
    many = tuple(f"a:{number}" for number in range(POLICY.images + 1))
    request = wanting(*many)
    refusal = refusal_of(request, POLICY)
    assert refusal is not None
    known = recorded(request, refusal)
    assert len(known.asked) == POLICY.images
    assert same_request(known, wanting(*many[:-1], f"docker.io/library/{many[-1]}"))
    assert not same_request(known, wanting(*many[:-1]))
    assert not same_request(known, wanting(*many[:-1], "other"))
    assert same_request(recorded(wanting("NO//"), FATAL), wanting("NO//"))


def test_transfer_ids_are_read_back() -> None:
    """Deployment ids may hold dots; anything else is nobody's transfer."""
    assert parse_transfer_id("a.b.c.3.14") == ("a.b.c", 3, 14)
    for wrong in ("", "a", "a.1", "a.x.1", "a.1.x", ".1.1", "a.-1.1", "a.².1"):
        assert parse_transfer_id(wrong) is None
