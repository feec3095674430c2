"""Evaluation of a deployment: the facts about each image that is due decide its next transition.

A deployment is evaluated when a timer fires, when a push ended, when an agent came up, and by the reconciler. Only
facts count, never the message that caused it, so that any number of evaluations in any order lead to the same end.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from events.messages import Failure
from services.core.deployments.agent_messages import (
    greet_agent,
    hold,
    is_absent,
    note_absence,
    transfer_failed,
    wait_for_agent,
)
from services.core.deployments.deployment import ACTIVE, Deployment, Policy
from services.core.deployments.facts import AgentFacts, Facts, ImageFacts
from services.core.deployments.signature_rule import is_refused, may_go_unseen
from services.core.deployments.state_table import Cause
from services.core.deployments.transfer_start import is_overdue, pull_unmounted
from services.core.deployments.transition_builder import PushEffect, Transition, TransitionBuilder

#: A timer may fire this much before its moment by another machine's clock.
SKEW = timedelta(seconds=2)
_NO_FACTS = ImageFacts()


def effective_now(deployment: Deployment, now: datetime) -> datetime:
    """`now`, or the moment the deployment waits for if that is nearly reached."""
    wake_at = deployment.wake_at
    return wake_at if wake_at is not None and now < wake_at <= now + SKEW else now


def due(deployment: Deployment, now: datetime) -> list[int]:
    """The images whose facts an evaluation needs."""
    if not deployment.open:
        return []
    at = effective_now(deployment, now)
    return [index for index, image in enumerate(deployment.images) if image.is_due(at)]


def evaluate(deployment: Deployment, facts: Facts, now: datetime, policy: Policy) -> Transition:
    """Advance every image that is due, by the facts."""
    if not deployment.open:
        return Transition(deployment)
    at = effective_now(deployment, now)
    indexes = due(deployment, now)
    draft = TransitionBuilder(deployment, at, policy)
    agent = facts.agent
    _meet(draft, agent)
    _refuse_platform(draft, agent)
    for index in indexes:
        image, found = draft.images[index], facts.images.get(index)
        if image.attempt != deployment.images[index].attempt:
            continue  # it was started over just now: the facts are about what it was before
        if image.state == "resolving":
            if found is not None:
                _resolve(draft, index, found, agent)
        elif image.state == "pushing":
            _check_push(draft, index, found or _NO_FACTS, agent)
        elif image.state == "queued":
            _check_queued(draft, index, agent)
        elif image.state == "mounting" and agent.alive and is_overdue(image, at, policy, _heard(found)):
            pull_unmounted(draft, index, found.registry if found else None)
        elif image.state in ACTIVE:
            _check_transfer(draft, index, found or _NO_FACTS, agent)
    speaks = agent.alive and agent.contested is None
    engine_id = agent.engine_id if speaks and agent.engine_id else deployment.engine_id
    return draft.done(engine_id=engine_id, host=agent.host or deployment.host)


def _meet(draft: TransitionBuilder, agent: AgentFacts) -> None:
    """The range's agent is there, away, or not alone."""
    if agent.contested is not None:
        hold(draft)
        note_absence(draft, agent)
    elif agent.alive:
        greet_agent(draft, agent.engine_id)
    elif is_absent(draft, agent):
        note_absence(draft, agent)


def _resolve(draft: TransitionBuilder, index: int, facts: ImageFacts, agent: AgentFacts) -> None:
    """Decide which content is desired, and by which path it can come."""
    image = draft.images[index]
    if facts.host is None and facts.registry is None:
        _nowhere(draft, index, facts)
        return
    wanted, diff_ids, size, platform = _wanted(draft, index, facts)
    mismatch = _platform_mismatch(draft, platform, agent)
    if mismatch:
        draft.fail(index, "unknown or refused", "platform_mismatch", f"{image.reference} {mismatch}")
        return
    error = None if image.error and image.error.code == "unavailable" else image.error
    host = facts.host.host if facts.host is not None else image.host
    draft.change(index, image_id=wanted, diff_ids=diff_ids, size_bytes=size, platform=platform, error=error, host=host)
    if facts.registry is not None and facts.registry.image_id == wanted:
        _enqueue(draft, index, facts, source=facts.registry.source, by_tar=image.pull_failed)
    elif wanted is not None and facts.registry_away is not None and not may_go_unseen(draft, index):
        _nowhere(draft, index, facts)
    elif wanted is not None and facts.registry_away is not None:
        draft.note(f"{image.reference} goes by tar: {facts.registry_away}")
        _enqueue(draft, index, facts, source=None, by_tar=True)
    elif wanted is not None and (image.push_failed or image.pull_failed):
        _enqueue(draft, index, facts, source=None, by_tar=True)
    else:
        first = min(_soon(draft, index), draft.in_seconds(draft.policy.missed_seconds))
        draft.move(index, "not in the registry", "pushing", deadline=first)
        draft.say(PushEffect(image.reference, wanted, host))


def _soon(draft: TransitionBuilder, index: int) -> datetime:
    """The next check, or the end of the grace in which the agent may be unavailable if that comes first."""
    since = draft.images[index].absent_since
    if since is None:
        return draft.next_check()
    return min(draft.next_check(), since + timedelta(seconds=draft.policy.agent_grace_seconds))


def _wanted(draft: TransitionBuilder, index: int, facts: ImageFacts) -> tuple[str | None, tuple[str, ...], int, str]:
    """Content id, diff IDs, bytes and platform. What the host has now decides, unless the content is pinned."""
    image, host, registry = draft.images[index], facts.host, facts.registry
    wanted = image.image_id
    if wanted is None:
        if host is not None:
            wanted = host.image_id
        elif registry is not None:
            wanted = registry.image_id
    if registry is not None and registry.image_id == wanted:
        return wanted, registry.diff_ids, registry.size_bytes, registry.platform
    if host is not None:
        return wanted, host.diff_ids, host.size_bytes, host.platform
    return wanted, image.diff_ids, image.size_bytes, registry.platform if registry else ""


def _nowhere(draft: TransitionBuilder, index: int, facts: ImageFacts) -> None:
    """Neither host engine nor registry has it, or neither could be asked."""
    image = draft.images[index]
    away = [reason for reason in (facts.host_away, facts.registry_away) if reason]
    if not away and image.image_id is not None and not image.pinned:
        draft.note(
            f"the content {image.image_id} of {image.reference} is nowhere any more: what the name has now is taken"
        )
        draft.change(
            index, image_id=None, diff_ids=(), push_failed=False, provenance=None, error=None, deadline=draft.now
        )
    elif not away:
        what = f"the content {image.image_id} of {image.reference}" if image.image_id else image.reference
        if facts.registry_unfit is not None:
            text = f"{what} is not on the host's engine, and {facts.registry_unfit}"
            draft.fail(index, "unknown or refused", "not_an_image", text)
            return
        text = f"{what} is neither on the host's engine nor in the registry: build, import or promote it, then retry"
        draft.fail(index, "unknown or refused", "image_not_found", text)
    elif draft.now - image.since >= timedelta(seconds=draft.policy.resolve_seconds):
        text = f"{image.reference} could not be looked up: {'; '.join(away)}: bring that back, then retry"
        draft.fail(index, "unknown or refused", "unavailable", text, retryable=True)
    else:
        why = "; ".join(away)
        patience = draft.policy.resolve_seconds
        if image.error is None or image.error.code != "unavailable":
            draft.note(f"images cannot be looked up ({why}): waiting {patience:.0f} s for that to come back")
            draft.change(index, error=Failure(code="unavailable", message=why, retryable=True))
        draft.move(
            index, "host engine and registry unavailable", "resolving", since=image.since, deadline=draft.next_check()
        )


def _refuse_platform(draft: TransitionBuilder, agent: AgentFacts) -> None:
    """A range may tell what it runs only after its images were resolved: what it cannot run is called off."""
    for index, image in enumerate(draft.images):
        if image.ended or image.state == "resolving":
            continue
        mismatch = _platform_mismatch(draft, image.platform, agent)
        if mismatch:
            draft.stop_transfer(index, "it is for another platform")
            draft.fail(index, "wrong platform", "platform_mismatch", f"{image.reference} {mismatch}")


def _platform_mismatch(draft: TransitionBuilder, platform: str, agent: AgentFacts) -> str | None:
    """Why the range cannot run this image; operating system and architecture are compared, variants are not."""
    for wanted, whose in ((draft.deployment.platform, "was asked for"), (agent.platform, "is what the range runs")):
        if wanted and platform and wanted.split("/")[:2] != platform.split("/")[:2]:
            return f"is for {platform}, but {wanted} {whose}: deploy an image of that platform"
    return None


def _enqueue(draft: TransitionBuilder, index: int, facts: ImageFacts, *, source: str | None, by_tar: bool) -> None:
    """The content can be transferred; now it waits for a slot, or for the range's agent."""
    if is_refused(draft, index, facts, source):
        return
    image = draft.images[index]
    cause: Cause
    if image.state == "pushing":
        cause = "pushed" if source else "push failed or stalled" if image.push_failed else "registry unavailable"
    elif source is not None:
        cause = "in the registry"
    else:
        cause = "push failed or stalled" if image.push_failed or image.pull_failed else "registry unavailable"
    absent = image.absent_since is not None
    deadline = _soon(draft, index) if absent else draft.in_seconds(draft.policy.silence_seconds)
    draft.move(index, cause, "queued", source=source, by_tar=by_tar, deadline=deadline)


def _check_push(draft: TransitionBuilder, index: int, facts: ImageFacts, agent: AgentFacts) -> None:
    """Check a push: in the registry now, given up, or silent for too long."""
    image, registry = draft.images[index], facts.registry
    if image.absent_since is not None and not wait_for_agent(draft, index, agent):
        return  # the push goes on all the same: it is of use to the next deployment
    if registry is not None and image.image_id is None and facts.host is not None:
        known = registry.diff_ids == facts.host.diff_ids
        draft.change(index, image_id=registry.image_id if known else None)
        image = draft.images[index]
    if registry is not None and registry.image_id == image.image_id:
        draft.change(index, diff_ids=registry.diff_ids, size_bytes=registry.size_bytes, error=None)
        _enqueue(draft, index, facts, source=registry.source, by_tar=image.pull_failed)
        return
    patience = timedelta(seconds=draft.policy.push_patience_seconds)
    heard = max(at for at in (facts.push_heard_at, image.since) if at is not None)
    busy = facts.pusher_heard_at is not None and draft.now - facts.pusher_heard_at < patience
    stalled = draft.now - heard >= (4 * patience if busy else patience)
    if image.image_id is None and image.push_failed and image.error is not None:
        draft.end(index, "failed permanently", "failed", error=image.error)
    elif image.image_id is None and stalled:
        text = f"{image.reference} was not pushed within {patience.total_seconds():.0f} s: see that the registry-pusher"
        draft.fail(index, "failed permanently", "push_stalled", f"{text} runs, then retry", retryable=True)
    elif image.image_id is not None and (image.push_failed or facts.registry_away is not None or stalled):
        why = image.error.message if image.error else facts.registry_away or "no progress of the push"
        draft.note(f"{image.reference} goes by tar: {why}")
        draft.change(index, push_failed=image.push_failed or stalled)
        _enqueue(draft, index, facts, source=None, by_tar=True)
    else:
        draft.change(index, deadline=_soon(draft, index))
        if facts.push_heard_at is None:
            draft.say(PushEffect(image.reference, image.image_id, image.host))


def _check_queued(draft: TransitionBuilder, index: int, agent: AgentFacts) -> None:
    if is_absent(draft, agent):
        wait_for_agent(draft, index, agent)
    else:
        draft.change(index, absent_since=None, deadline=draft.in_seconds(draft.policy.silence_seconds))


def _check_transfer(draft: TransitionBuilder, index: int, facts: ImageFacts, agent: AgentFacts) -> None:
    """Check a transfer: moving, standing still, silent, too long at work, or without an agent."""
    image, policy = draft.images[index], draft.policy
    if not agent.alive:
        wait_for_agent(draft, index, agent)
        return
    heard = _latest(image.since, image.heard_at, facts.heard_at)
    advanced = _latest(image.since, image.advanced_at, facts.advanced_at)
    begun = image.begun_at or image.since
    what = f"{image.reference} to range {draft.deployment.range_id}"
    why: str | None = None
    if draft.now - heard >= timedelta(seconds=policy.silence_seconds):
        why = f"no sign of life of {what} since {heard:%H:%M:%S} UTC"
    elif draft.now - advanced >= timedelta(seconds=policy.standing_seconds(image.size_bytes)):
        why = f"{what} got no further since {advanced:%H:%M:%S} UTC, though the range tells of it"
    elif draft.now - begun >= timedelta(seconds=policy.attempt_limit_seconds(image.size_bytes)):
        why = f"{what} was not there after {(draft.now - begun).total_seconds():.0f} s"
    if why is None:
        draft.change(index, heard_at=heard, advanced_at=advanced, deadline=draft.next_check())
    else:
        draft.stop_transfer(index, "it does not get on")
        text = f"{why}: see the range's network and the load of its engine"
        transfer_failed(draft, index, Failure(code="stalled", message=text, retryable=True))


def _heard(facts: ImageFacts | None) -> datetime | None:
    """When progress of the transfer was last heard."""
    return facts.heard_at if facts is not None else None


def _latest(*moments: datetime | None) -> datetime:
    return max(moment for moment in moments if moment is not None)
