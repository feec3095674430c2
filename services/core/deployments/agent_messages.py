"""Transitions of an image when its range's agent is unavailable, comes back, reports a failure, or asks for a tar."""

from __future__ import annotations

from datetime import timedelta

from events.messages import Failure, TarRequested
from services.core.deployments.deployment import ACTIVE
from services.core.deployments.facts import AgentFacts
from services.core.deployments.transition_builder import OfferEffect, TransitionBuilder
from services.errors import retry_helps

#: Failures of a pull that no tar can heal.
_TAR_CANNOT_HELP = frozenset({"platform_mismatch", "bad_reference", "cancelled", "not_an_image", "no_space"})

#: Why an archive is asked for that takes no pull's place.
_NO_FAILURE = frozenset({"same_layers", "no_source"})
#: Archives offered in one attempt to an agent that tells a failure which stays: without and with all layers.
FINAL_OFFERS = 2


def is_absent(draft: TransitionBuilder, agent: AgentFacts) -> bool:
    """Whether the range's agent is absent, or not alone. A range with an `engine_url` is given an agent when needed."""
    return agent.contested is not None or (not agent.alive and draft.deployment.engine_url is None)


def hold(draft: TransitionBuilder) -> None:
    """Two agents speak for the range: what is under way, or said to be there, may be on either engine. All of it waits
    and begins over when one is left; what is there is found there then."""
    for index, image in enumerate(draft.images):
        if image.state == "ready" or image.state in ACTIVE:
            draft.stop_transfer(index, "two agents speak for the range")
            draft.again(index, "range contested", how=None, first_attempt=image.attempt + 1)


def note_absence(draft: TransitionBuilder, agent: AgentFacts) -> None:
    """At the first evaluation: everything that needs the agent begins to wait for it, whatever else it waits for."""
    grace = draft.policy.agent_grace_seconds
    for index, image in enumerate(draft.images):
        if image.absent_since is None and image.state in ("resolving", "pushing", "queued"):
            _note_waiting(draft, agent, " and never announced itself" if not agent.known else "")
            until = draft.in_seconds(grace)
            deadline = until if image.deadline is None else min(image.deadline, until)
            draft.change(index, absent_since=draft.now, deadline=deadline)


def wait_for_agent(draft: TransitionBuilder, index: int, agent: AgentFacts) -> bool:
    """Evaluate again within the grace; after it the image has failed with that reason. Whether it still waits."""
    grace = timedelta(seconds=draft.policy.agent_grace_seconds)
    since = draft.images[index].absent_since
    if since is None:
        _note_waiting(draft, agent)
        since = draft.now
    if draft.now - since < grace:
        draft.change(index, absent_since=since, deadline=min(draft.next_check(), since + grace))
        return True
    draft.stop_transfer(index, "the deployment gave up")
    text, code = _why_no_agent(draft, agent), "no_agent"
    if agent.contested is not None:
        text, code = f"{agent.contested}; then retry", "range_contested"
    draft.fail(index, "no agent within the grace period", code, text, retryable=True)
    return False


def _note_waiting(draft: TransitionBuilder, agent: AgentFacts, announced: str = "") -> None:
    seconds = f"waiting {draft.policy.agent_grace_seconds:.0f} s for"
    if agent.contested is not None:
        draft.note(f"{agent.contested}: {seconds} that")
    else:
        draft.note(f"range {draft.deployment.range_id} has no live agent{announced}: {seconds} it")


def _why_no_agent(draft: TransitionBuilder, agent: AgentFacts) -> str:
    url, range_id = draft.deployment.engine_url, draft.deployment.range_id
    if url is None and not agent.known:
        return f"range {range_id} never announced itself: check the name, or start its agent, then retry"
    remedy = f"see that an agent-pool runs and reaches {url}" if url else "start the range (its agent)"
    return f"range {range_id} had no live agent for {draft.policy.agent_grace_seconds:.0f} s: {remedy}, then retry"


def greet_agent(draft: TransitionBuilder, engine_id: str | None) -> None:
    """The changes of `agent_back`, within another transition."""
    before = draft.deployment.engine_id
    recreated = before is not None and engine_id is not None and before != engine_id
    for index, image in enumerate(draft.images):
        if recreated and (image.state == "ready" or image.state in ACTIVE):
            draft.stop_transfer(index, "the range was recreated")
            if image.recreations >= draft.policy.recreations:
                _never_settles(draft, index)
                continue
            draft.again(
                index,
                "range recreated",
                how=None,
                first_attempt=image.attempt + 1,
                recreations=image.recreations + 1,
            )
        elif image.absent_since is not None:
            _returned(draft, index)


def _returned(draft: TransitionBuilder, index: int) -> None:
    """What waited for the agent goes on; but not for ever by an agent that comes and goes."""
    image, policy = draft.images[index], draft.policy
    if image.state == "queued":
        draft.change(index, absent_since=None, deadline=draft.in_seconds(policy.silence_seconds))
    elif image.state not in ACTIVE:
        draft.change(index, absent_since=None)
    elif image.returns < policy.returns:
        draft.change(
            index,
            absent_since=None,
            returns=image.returns + 1,
            heard_at=draft.now,
            advanced_at=draft.now,
            deadline=draft.next_check(),
        )
    else:
        range_id = draft.deployment.range_id
        text = (
            f"the agent of range {range_id} went away {image.returns + 1} times while {image.reference} was under way: "
            f"see in its log why it does not stay, and that its network to Redis holds"
        )
        draft.stop_transfer(index, "the agent comes and goes")
        transfer_failed(draft, index, Failure(code="agent_unstable", message=text, retryable=True))


def _never_settles(draft: TransitionBuilder, index: int) -> None:
    range_id, times = draft.deployment.range_id, draft.images[index].recreations
    text = f"range {range_id} had another engine {times} times during this deployment: see that it does not restart "
    draft.fail(
        index, "range recreated", "range_unstable", text + "over and over and that one agent alone speaks for it"
    )


def transfer_failed(draft: TransitionBuilder, index: int, error: Failure) -> None:
    """Decide after a failed transfer: the same path again, the other path, or the end."""
    image = draft.images[index]
    failures = image.failures + 1
    if retry_helps(error) and failures < draft.policy.attempts:
        at = draft.now + draft.policy.backoff(failures)
        draft.again(index, "failed, tries left", at=at, failures=failures, error=error)
    elif image.state in ("mounting", "pulling") and error.code not in _TAR_CANNOT_HELP:
        draft.again(index, "failed, tries left", failures=0, pull_failed=True, error=error)
    else:
        draft.end(index, "failed permanently", "failed", error=error)


def tar_requested(draft: TransitionBuilder, index: int, message: TarRequested) -> None:
    """An archive is offered. What it leaves out is fixed by the first request of an attempt that leaves out anything:
    each other set would be another export of the host, and a range may ask with as many sets as it likes."""
    image = draft.images[index]
    if image.offers >= FINAL_OFFERS and not retry_helps(message.reason):
        transfer_failed(draft, index, message.reason)  # one more archive would end alike
        return
    wanted = frozenset(image.diff_ids)
    present = tuple(diff_id for diff_id in dict.fromkeys(message.diff_ids) if diff_id in wanted)
    raw = tuple(diff_id for diff_id in present if diff_id in message.raw)
    if message.thin and image.offered:
        present, raw = image.offered, image.offered_raw
    if image.offers >= draft.policy.offers:
        text = f"{image.offers} archives of {image.reference} were offered and none arrived: {message.reason.message}"
        transfer_failed(draft, index, Failure(code=message.reason.code, message=text, retryable=True))
        return
    pull_failed = image.pull_failed or image.state == "pulling"
    not_pulled = image.not_pulled
    if image.state == "pulling" and message.reason.code not in _NO_FAILURE:
        not_pulled = message.reason
        draft.note(f"{image.reference} goes by tar: {message.reason.message}")
    draft.move(
        index,
        "agent asks for tar",
        "loading",
        deadline=draft.next_check(),
        heard_at=draft.now,
        advanced_at=draft.now,
        offers=image.offers + 1,
        offered=present if message.thin else image.offered,
        offered_raw=raw if message.thin else image.offered_raw,
        by_tar=True,
        pull_failed=pull_failed,
        not_pulled=not_pulled,
        failures=0 if image.state == "pulling" else image.failures,
    )
    draft.say(OfferEffect(index, message.transfer_id, present, message.layout, message.thin, raw))
