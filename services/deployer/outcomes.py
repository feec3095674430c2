"""Outcomes: turns a transition into what the bus commits (records, index entries, posts) and logs each image's end."""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

import msgspec

from events.bus import IndexWrite, Outcome, Post
from events.envelope import Envelope
from events.messages import (
    DeploymentAdvance,
    LoadOffered,
    Message,
    PullRequested,
    PushRequested,
    TransferCancelled,
    TransferProgress,
)
from events.records import ANY, Stored
from events.streams import Streams
from services.core.deployments.deployment import Deployment, Policy
from services.core.deployments.index import DeploymentKeys, index_writes
from services.core.deployments.offers import Offer, offer_key
from services.core.deployments.pull_tokens import PullTokens
from services.core.deployments.transition_builder import (
    CommandEffect,
    Effect,
    LogEffect,
    MountEffect,
    OfferEffect,
    PublishEffect,
    PushEffect,
    TimerEffect,
    Transition,
)
from services.core.ranges.ranges import EnginePlace, RangeKeys
from services.deployer.archive_origins import NO_ORIGINS, Origin, Origins
from services.deployer.end_log import log_ends
from services.deployer.transfer_metrics import count_ends
from services.runtime.telemetry import get_logger

#: Said by whichever replica: the same command from several of them within this time is one.
SHARED_SOURCE = "deployer"
ASK_SECONDS = 5.0


def shared_id(*parts: object) -> str:
    """An envelope id that every replica computes alike, so that a message which all publish is added once."""
    return str(uuid5(NAMESPACE_URL, "/".join(map(str, parts))))


def merged(*outcomes: Outcome) -> Outcome:
    """Several outcomes, committed as one."""
    return Outcome(
        posts=tuple(post for outcome in outcomes for post in outcome.posts),
        records=tuple(record for outcome in outcomes for record in outcome.records),
        index=tuple(entry for outcome in outcomes for entry in outcome.index),
    )


#: A deployment of which there is no record yet.
NEW: Stored[Deployment] = Stored(value=None, revision=0)


class OutcomeWriter:
    """Turns transitions into outcomes. `source` names this replica in the envelopes it writes."""

    def __init__(
        self,
        *,
        streams: Streams,
        source: str,
        tar_url: str,
        policy: Policy,
        pull_tokens: PullTokens | None = None,
        host: str = "local",
    ) -> None:
        self.keys = DeploymentKeys(streams.prefix)
        self._range_keys = RangeKeys(streams.prefix)
        self._streams = streams
        self._source = source
        self._host = host
        self._tar_url = tar_url.rstrip("/")
        self._policy = policy
        self._pull_tokens = pull_tokens
        self._log = get_logger(role="deployer")

    def outcome(
        self,
        stored: Stored[Deployment],
        step: Transition,
        now: datetime,
        *,
        cause: Envelope | None = None,
        afresh: bool = False,
        origins: Origins = NO_ORIGINS,
    ) -> Outcome:
        """The outcome of a transition. `afresh` writes every index entry again, whatever is expected to be there.

        `origins` are those of the images of which an archive is offered.
        """
        before, after = stored.value, step.deployment
        parts = [self._effect(effect, after, now, cause, origins) for effect in step.effects]
        if before is None and after.engine_url is not None:
            parts.append(self._place(after, after.engine_url, now))
        if before == after and not afresh:
            return merged(*parts)
        log_ends(before, after)
        count_ends(before, after)
        keep_seconds = None if after.open else self._policy.keep_seconds
        record = self.keys.record(after.deployment_id).write(after, expected=stored, expires_seconds=keep_seconds)
        index = index_writes(self.keys, before, after, afresh=afresh)
        return merged(Outcome(records=(record,), index=index), *parts)

    def post(
        self,
        stream: str,
        message: Message,
        *,
        about: str,
        now: datetime,
        correlation_id: str = "",
        cause: Envelope | None = None,
        due: datetime | None = None,
        trace: str | None = None,
    ) -> Post:
        """One message of this replica; `trace` is its trace context, where that is not the cause's."""
        envelope = Envelope(
            message=message,
            source=self._source,
            subject=about,
            time=now,
            correlation_id=correlation_id or (cause.correlation_id if cause else ""),
            causation_id=cause.id if cause else None,
            traceparent=trace or (cause.traceparent if cause else None),
        )
        return Post(stream, envelope, due)

    def shared(self, stream: str, message: Message, *, about: str, now: datetime, key: str, **more: str) -> Post:
        """One message that all replicas may publish and that is added once per `key`."""
        envelope = Envelope(
            message=message, source=SHARED_SOURCE, subject=about, time=now, id=shared_id(about, key), **more
        )
        return Post(stream, envelope)

    def advance(
        self,
        message: DeploymentAdvance,
        now: datetime,
        *,
        correlation_id: str = "",
        due: datetime | None = None,
        trace: str | None = None,
    ) -> Post:
        """An advance of a deployment: at once, or as a timer."""
        return self.post(
            self._streams.deployer,
            message,
            about=message.deployment_id,
            now=now,
            correlation_id=correlation_id,
            due=due if due is not None and due > now else None,
            trace=trace,
        )

    def remark(
        self,
        text: str,
        *,
        deployment_id: str,
        range_id: str,
        now: datetime,
        correlation_id: str = "",
        cause: Envelope | None = None,
    ) -> Outcome:
        """A remark about a deployment as a whole: a line in the log, and progress for clients that follow it."""
        message = TransferProgress(
            transfer_id=deployment_id, reference="", kind="pull", phase="waiting", range_id=range_id, note=text
        )
        post = self.post(
            self._streams.progress, message, about=range_id, now=now, correlation_id=correlation_id, cause=cause
        )
        self._log.warning(text, deployment=deployment_id, range=range_id, correlation_id=post.envelope.correlation_id)
        return Outcome(posts=(post,))

    def _with_token(
        self, message: PullRequested | TransferCancelled, now: datetime
    ) -> PullRequested | TransferCancelled:
        """The command to pull with the token that the pull side of the registry needs, if it needs one."""
        if self._pull_tokens is None or not isinstance(message, PullRequested) or message.source is None:
            return message
        token = self._pull_tokens.token(message.source, total_bytes=message.total_bytes, now=now)
        return msgspec.structs.replace(message, registry_token=token)

    def _effect(
        self, effect: Effect, after: Deployment, now: datetime, cause: Envelope | None, origins: Origins
    ) -> Outcome:
        withdrawn, trace = Outcome(), after.trace_after(cause.traceparent if cause else None)
        match effect:
            case PushEffect():
                return Outcome(posts=(self._ask_push(effect, after, now, trace),))
            case CommandEffect(message=command):
                stream, about = self._streams.inbox(after.range_id), after.range_id
                message = self._with_token(command, now)
                if isinstance(command, TransferCancelled):
                    offer = offer_key(self._streams.prefix, command.transfer_id)
                    withdrawn = Outcome(records=(offer.delete(expected=ANY),))
            case MountEffect(message=message):
                stream, about = self._streams.host_inbox(after.host or self._host), after.range_id
            case PublishEffect(message=message):
                stream, about = self._streams.deployments, after.deployment_id
            case OfferEffect():
                return self._offer(effect, after, now, cause, origins.get(effect.index, Origin()))
            case TimerEffect(at=at):
                timer = DeploymentAdvance(deployment_id=after.deployment_id)
                said = self.advance(timer, now, correlation_id=after.correlation_id, due=at, trace=trace)
                return Outcome(posts=(said,))
            case LogEffect(text=text):
                return self.remark(
                    text,
                    deployment_id=after.deployment_id,
                    range_id=after.range_id,
                    now=now,
                    correlation_id=after.correlation_id,
                    cause=cause,
                )
        told = after.correlation_id
        said = self.post(stream, message, about=about, now=now, correlation_id=told, cause=cause, trace=trace)
        return merged(Outcome(posts=(said,)), withdrawn)

    def _ask_push(self, effect: PushEffect, after: Deployment, now: datetime, trace: str | None) -> Post:
        host = effect.host or None
        message = PushRequested(reference=effect.reference, image_id=effect.image_id, why="on_demand", host=host)
        key = f"push/{effect.image_id}/{int(now.timestamp() // ASK_SECONDS)}"
        return self.shared(
            self._streams.host_inbox(host) if host else self._streams.images,
            message,
            about=effect.reference,
            now=now,
            key=key,
            correlation_id=after.correlation_id,
            traceparent=trace or "",
        )

    def _offer(
        self,
        effect: OfferEffect,
        after: Deployment,
        now: datetime,
        cause: Envelope | None,
        origin: Origin,
    ) -> Outcome:
        image = after.images[effect.index]
        present = frozenset(effect.present) if effect.thin else frozenset[str]()
        held = tuple(dict.fromkeys(diff_id for diff_id in image.diff_ids if diff_id not in present))
        token = secrets.token_urlsafe(32)
        offer = Offer.make(
            token=token,
            transfer_id=effect.transfer_id,
            reference=image.reference,
            image_id=image.image_id or "",
            diff_ids=image.diff_ids,
            held=held,
            layout=effect.layout,
            now=now,
            lifetime_seconds=self._policy.offer_seconds,
            range_id=after.range_id,
            layers=tuple(layer for layer in origin.layers if layer.diff_id not in effect.raw),
        )
        message = LoadOffered(
            transfer_id=effect.transfer_id,
            reference=image.reference,
            image_id=offer.image_id,
            url=f"{(origin.tar_url or self._tar_url).rstrip('/')}/transfers/{effect.transfer_id}",
            token=token,
            diff_ids=image.diff_ids,
            held=held,
            layout=effect.layout,
        )
        inbox = self._streams.inbox(after.range_id)
        told, trace = after.correlation_id, after.trace_after(cause.traceparent if cause else None)
        said = self.post(inbox, message, about=after.range_id, now=now, correlation_id=told, cause=cause, trace=trace)
        key = offer_key(self._streams.prefix, effect.transfer_id)
        record = key.write(offer, expected=ANY, expires_seconds=self._policy.offer_seconds)
        return Outcome(posts=(said,), records=(record,))

    def _place(self, after: Deployment, engine_url: str, now: datetime) -> Outcome:
        place = EnginePlace(
            range_id=after.range_id,
            engine_url=engine_url,
            deployment_id=after.deployment_id,
            since=now,
            host=after.host,
        )
        record = self._range_keys.place(after.range_id).write(place, expected=ANY)
        return Outcome(records=(record,), index=(IndexWrite(self._range_keys.places, after.range_id, now.timestamp()),))
