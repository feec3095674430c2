"""The machine: every move of the table is made by some story here, each story in one sentence."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from events.messages import (
    DeploymentCancelled,
    DeploymentFailed,
    DeploymentRequested,
    DeploymentSucceeded,
    Failure,
    ImageFailed,
    ImageReady,
    Layer,
    PullRequested,
    TarRequested,
    TransferCancelled,
)
from services.core.deployment import (
    AgentFacts,
    Deployment,
    Facts,
    HostImage,
    ImageFacts,
    ImageState,
    Policy,
    RegistryImage,
    State,
    parse_transfer_id,
)
from services.core.deployment_draft import AskPush, Effect, Note, OfferArchive, Say, Step, Tell, Wake
from services.core.deployment_look import admit, due, look
from services.core.deployment_steps import (
    agent_back,
    agent_said,
    answered_again,
    asked,
    cancelled,
    push_ended,
    refusal_of,
    retried,
    same_request,
)
from services.core.deployment_table import MOVES, Cause, Move, check_move

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
made: set[Move] = set()


@pytest.fixture(autouse=True)
def _moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember which moves of the table the stories make."""

    def remember(before: State | None, cause: Cause, after: State) -> None:
        check_move(before, cause, after)
        made.add(Move(before, cause, after))

    monkeypatch.setattr("services.core.deployment_draft.check_move", remember)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def opened() -> Deployment:
    request = DeploymentRequested(deployment_id="d1", range_id="r1", images=("app:1",))
    made.add(Move(None, "asked for", "resolving"))
    return asked(request, ("docker.io/library/app:1",), None, correlation_id="c", now=NOW, policy=POLICY).deployment


def seen(deployment: Deployment, facts: ImageFacts, *, agent: AgentFacts = UP, at: datetime = NOW) -> Step:
    """One look with the same facts about every image."""
    return look(deployment, Facts(agent=agent, images=dict.fromkeys(due(deployment, at), facts)), at, POLICY)


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


def said(step: Step, kind: type[Effect]) -> list[Effect]:
    return [effect for effect in step.effects if isinstance(effect, kind)]


def test_a_request_is_looked_at_at_once() -> None:
    """A new deployment sets its first timer for now."""
    request = DeploymentRequested(deployment_id="d1", range_id="r1", images=("app:1",))
    step = asked(request, ("docker.io/library/app:1",), None, correlation_id="c", now=NOW, policy=POLICY)
    assert step.effects == (Wake(NOW),)
    assert due(step.deployment, NOW) == [0]


def test_what_the_registry_has_waits_for_a_slot() -> None:
    """The registry has the host's content: no push."""
    step = seen(opened(), ImageFacts(host=HOST, registry=REGISTRY))
    assert only(step.deployment).state == "queued"
    assert only(step.deployment).source == REGISTRY.source
    assert said(step, AskPush) == []


def test_what_only_the_registry_has_is_enough() -> None:
    """The host's engine is away or forgot it: the registry's content is the wanted one."""
    found = seen(opened(), ImageFacts(registry=REGISTRY, host_away="stopped")).deployment
    assert (only(found).state, only(found).image_id) == ("queued", WANTED)


def test_what_the_registry_lacks_is_pushed() -> None:
    """Other content under the tag counts as lacking: the host's content decides."""

    from msgspec.structs import replace as _  # noqa: F401  the state is a Struct, facts are dataclasses

    step = seen(opened(), ImageFacts(host=HOST, registry=dataclasses.replace(REGISTRY, image_id=OTHER)))
    assert only(step.deployment).state == "pushing"
    assert said(step, AskPush) == [AskPush("docker.io/library/app:1", WANTED)]


def test_what_is_nowhere_fails_at_once() -> None:
    """Neither has it and both answered: nothing to wait for."""
    step = seen(opened(), ImageFacts())
    (end,) = said(step, Say)
    assert isinstance(end, Say)
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
    """The first look tells why nothing happens; later ones do not repeat it, and a good look forgets it."""
    away = ImageFacts(host_away="engine stopped")
    step = seen(opened(), away)
    text = "images cannot be looked up (engine stopped): waiting 120 s for that to come back"
    assert said(step, Note) == [Note(text)]
    step = seen(step.deployment, away, at=later(POLICY.check_seconds))
    assert said(step, Note) == []
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
    assert (said(step, Tell) != []) is (state not in ("pushing", "queued"))


def test_a_platform_the_range_cannot_run_is_refused() -> None:
    """An image for another architecture never leaves the host."""
    agent = AgentFacts(alive=True, engine_id="e1", platform="linux/arm64")
    found = seen(opened(), ImageFacts(host=HOST, registry=REGISTRY), agent=agent).deployment
    error = only(found).error
    assert error is not None
    assert error.code == "platform_mismatch"


def test_a_push_that_ends_well_is_queued() -> None:
    """Told that the push ended, the next look finds it in the registry."""
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
    assert said(step, AskPush) == []


def test_a_registry_that_went_away_while_pushing_is_not_waited_for() -> None:
    """The next look finds the registry away: by tar."""
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
    (told,) = said(step, Tell)
    assert isinstance(told, Tell)
    message = told.message
    assert isinstance(message, PullRequested)
    assert (message.transfer_id, message.source, message.layers) == ("d1.0.1", REGISTRY.source, REGISTRY.layers)
    assert only(step.deployment).state == "pulling"


def test_admitted_by_tar() -> None:
    """Without a registry the agent is told to ask for a tar."""
    step = admit(queued(by_tar=True), {0: None}, NOW, POLICY)
    (told,) = said(step, Tell)
    assert isinstance(told, Tell)
    assert isinstance(told.message, PullRequested)
    assert told.message.source is None
    assert only(step.deployment).state == "falling_back"


@pytest.mark.parametrize("state", ["pulling", "falling_back", "loading"])
def test_content_reported_ends_it(state: str) -> None:
    """The engine reports the wanted content: ready, and the deployment succeeded."""
    step = agent_said(working(state), ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled"), NOW, POLICY)
    (end,) = said(step, Say)
    assert isinstance(end, Say)
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
    assert said(step, OfferArchive) == [OfferArchive(0, "d1.0.1", (LAYER,), "docker", True)]
    assert only(step.deployment).state == "loading"


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
        assert agent_said(before, message, NOW, POLICY) == Step(before)
    ended = agent_said(before, ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled"), NOW, POLICY).deployment
    assert agent_said(ended, ImageFailed(transfer_id="d1.0.1", error=FATAL), NOW, POLICY) == Step(ended)


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
    assert said(step, AskPush) == [AskPush("docker.io/library/app:1", WANTED)]
    assert said(step, Note) == [Note("range r1 has no live agent: waiting 60 s for it")]


def test_a_long_push_does_not_prolong_the_grace() -> None:
    """The push is under way and heard of, the agent is not: failed after the grace, counted from the first look."""
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
    text = (
        "range r1 never announced itself: check the name with `cyroid-images ranges ls`, or start its agent, then retry"
    )
    assert only(found).error == Failure(code="no_agent", message=text, retryable=True)


def test_an_agent_that_comes_back_goes_on() -> None:
    """Back within the grace, with the same engine: its own work goes on."""
    absent = seen(working(), ImageFacts(), agent=DOWN, at=later(POLICY.check_seconds)).deployment
    found = agent_back(absent, "e1", later(20), POLICY).deployment
    assert (only(found).state, only(found).absent_since) == ("pulling", None)


def test_an_agent_that_comes_and_goes_does_not_keep_a_transfer_for_ever() -> None:
    """Away for less than the grace and back for less than the silence, again and again: that counts as failing."""
    found, at = working(), 0.0
    while only(found).attempt == 1:
        at += POLICY.check_seconds
        found = seen(found, ImageFacts(), agent=DOWN, at=later(at)).deployment
        assert only(found).absent_since == later(at)
        at += 20
        step = agent_back(found, "e1", later(at), POLICY)
        found = step.deployment
    assert at <= (POLICY.returns + 1) * (POLICY.check_seconds + 20)
    assert said(step, Tell) == [Tell(TransferCancelled(transfer_id="d1.0.1", reason="the agent comes and goes"))]
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


def test_silence_counts_as_stalled_and_progress_does_not() -> None:
    """An agent that is alive and says nothing of the transfer for long has lost it: called off and tried again."""
    at = later(POLICY.silence_seconds)
    assert only(seen(working(), ImageFacts(heard_at=at, advanced_at=at), at=at).deployment).state == "pulling"
    step = seen(working(), ImageFacts(), at=at)
    assert said(step, Tell) == [Tell(TransferCancelled(transfer_id="d1.0.1", reason="it does not get on"))]
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


@pytest.mark.parametrize(
    "make",
    [opened, pushing, queued, working, lambda: working("falling_back"), lambda: working("loading")],
)
def test_cancelling_ends_every_open_state(make: object) -> None:
    """Whatever was going on stops, and the end says so."""
    assert callable(make)
    step = cancelled(make(), "not needed", NOW, POLICY)
    (end,) = said(step, Say)
    assert isinstance(end, Say)
    assert isinstance(end.message, DeploymentCancelled)
    assert cancelled(step.deployment, "again", NOW, POLICY) == Step(step.deployment)


def test_retrying_a_cancelled_or_failed_deployment_begins_what_is_missing() -> None:
    """A retry resolves again; of one that succeeded only the answer is repeated."""
    for ended in (cancelled(working(), "", NOW, POLICY).deployment, seen(opened(), ImageFacts()).deployment):
        again = retried(ended, later(9), POLICY).deployment
        assert (again.open, only(again).state, again.round) == (True, "resolving", 2)
    ready = ImageReady(transfer_id="d1.0.1", image_id=WANTED, how="pulled")
    done = agent_said(working(), ready, NOW, POLICY).deployment
    assert retried(done, NOW, POLICY) == answered_again(done)
    assert len(answered_again(done).effects) == 1


def wanting(*images: str, **more: Any) -> DeploymentRequested:
    return replace(DeploymentRequested(deployment_id="d1", range_id="r1", images=images), **more)


def recorded(request: DeploymentRequested, refusal: Failure | None = None) -> Deployment:
    references = () if refusal else ("docker.io/library/app:1",)
    return asked(request, references, refusal, correlation_id="c", now=NOW, policy=POLICY).deployment


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


def test_nothing_of_an_ended_deployment_is_admitted() -> None:
    """A ticket may still lie in the queue when its deployment ended."""
    ended = cancelled(queued(), "", NOW, POLICY).deployment
    assert admit(ended, {0: REGISTRY}, NOW, POLICY) == Step(ended)


def test_timers_that_fire_early_by_another_clock_count() -> None:
    """Within the skew, the moment waited for has come; long before it nothing is due."""
    found = working()
    assert due(found, later(POLICY.check_seconds - 1)) == [0]
    assert due(found, later(POLICY.check_seconds - 5)) == []


def test_transfer_ids_are_read_back() -> None:
    """Deployment ids may hold dots; anything else is nobody's transfer."""
    assert parse_transfer_id("a.b.c.3.14") == ("a.b.c", 3, 14)
    for wrong in ("", "a", "a.1", "a.x.1", "a.1.x", ".1.1", "a.-1.1", "a.².1"):
        assert parse_transfer_id(wrong) is None


def test_every_move_of_the_table_was_made() -> None:
    """The drawing shows no move that no story of this module makes (run the module as a whole)."""
    unmade = {move for move in MOVES if move not in made}
    assert unmade == set()
