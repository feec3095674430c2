"""What becomes of an image when its range's agent is away, comes back, or could not do it: parts of other steps."""

from __future__ import annotations

from datetime import timedelta

from events.messages import Failure
from services.core.deployment import ACTIVE, AgentFacts
from services.core.deployment_draft import Draft

#: Failures of a pull that no tar can heal.
_TAR_CANNOT_HELP = frozenset({"platform_mismatch", "bad_reference", "cancelled"})


def is_absent(draft: Draft, agent: AgentFacts) -> bool:
    """Whether the deployment has nobody to do its work: a range with an `engine_url` is given an agent when needed."""
    return not agent.alive and draft.deployment.engine_url is None


def note_absence(draft: Draft, agent: AgentFacts) -> None:
    """Said at the first look: everything that needs the agent begins to wait for it, whatever else it waits for."""
    range_id, grace = draft.deployment.range_id, draft.policy.agent_grace_seconds
    waiting = f"waiting {grace:.0f} s for it"
    for index, image in enumerate(draft.images):
        if image.absent_since is None and image.state in ("resolving", "pushing", "queued"):
            announced = "" if agent.known else " and never announced itself"
            draft.note(f"range {range_id} has no live agent{announced}: {waiting}")
            until = draft.in_seconds(grace)
            deadline = until if image.deadline is None else min(image.deadline, until)
            draft.change(index, absent_since=draft.now, deadline=deadline)


def wait_for_agent(draft: Draft, index: int, agent: AgentFacts) -> bool:
    """Look again within the grace; after it the image has failed with that reason. Whether it still waits."""
    grace = timedelta(seconds=draft.policy.agent_grace_seconds)
    since = draft.images[index].absent_since
    if since is None:
        draft.note(f"range {draft.deployment.range_id} has no live agent: waiting {grace.total_seconds():.0f} s for it")
        since = draft.now
    if draft.now - since < grace:
        draft.change(index, absent_since=since, deadline=min(draft.next_check(), since + grace))
        return True
    draft.stop_transfer(index, "the deployment gave up")
    text = _why_no_agent(draft, agent)
    draft.fail(index, "no agent within the grace", "no_agent", text, retryable=True)
    return False


def _why_no_agent(draft: Draft, agent: AgentFacts) -> str:
    url, range_id = draft.deployment.engine_url, draft.deployment.range_id
    if url is None and not agent.known:
        return (
            f"range {range_id} never announced itself: check the name with `cyroid-images ranges ls`, or start its "
            f"agent, then retry"
        )
    remedy = f"see that an agent-pool runs and reaches {url}" if url else "start the range (its agent)"
    return f"range {range_id} had no live agent for {draft.policy.agent_grace_seconds:.0f} s: {remedy}, then retry"


def greet_agent(draft: Draft, engine_id: str | None) -> None:
    """What `agent_back` does, within another step."""
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


def _returned(draft: Draft, index: int) -> None:
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


def _never_settles(draft: Draft, index: int) -> None:
    range_id, times = draft.deployment.range_id, draft.images[index].recreations
    text = f"range {range_id} had another engine {times} times during this deployment: see that it does not restart "
    draft.fail(
        index, "range recreated", "range_unstable", text + "over and over and that one agent alone speaks for it"
    )


def transfer_failed(draft: Draft, index: int, error: Failure) -> None:
    """A transfer ended badly: the same path again, the other path, or the end."""
    image = draft.images[index]
    failures = image.failures + 1
    if error.retryable and failures < draft.policy.attempts:
        at = draft.now + draft.policy.backoff(failures)
        draft.again(index, "failed, tries left", at=at, failures=failures, error=error)
    elif image.state == "pulling" and error.code not in _TAR_CANNOT_HELP:
        draft.again(index, "failed, tries left", failures=0, pull_failed=True, error=error)
    else:
        draft.end(index, "failed for good", "failed", error=error)
