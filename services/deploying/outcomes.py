"""From a step of the machine to what the bus commits: records, index entries, posts; and one log line per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from uuid import NAMESPACE_URL, uuid5

import msgspec

from events.bus import IndexWrite, Outcome, Post, RecordWrite, Speaker
from events.envelope import Envelope
from events.messages import (
    DeploymentAdvance,
    Layer,
    LoadOffered,
    Message,
    PushRequested,
    TransferCancelled,
    TransferProgress,
)
from events.streams import Streams
from services.core.deployment import Deployment, ImageState, Policy
from services.core.deployment_draft import AskPush, Effect, Note, OfferArchive, Say, Step, Tell, Wake
from services.core.deployment_index import DeploymentKeys, index_writes
from services.core.offers import Offer, offer_key
from services.core.ranges import EnginePlace, RangeKeys
from services.telemetry import get_logger

#: Said by whichever replica: the same command from several of them within this time is one.
SHARED_SOURCE = "deployer"
ASK_SECONDS = 5.0
#: An image's number → its layers as the registry has them.
Layers = Mapping[int, tuple[Layer, ...]]
NO_LAYERS: Layers = MappingProxyType({})


def shared_id(*parts: object) -> str:
    """An envelope id that every replica makes alike, so that what they all say is said once."""
    return str(uuid5(NAMESPACE_URL, "/".join(map(str, parts))))


def merged(*outcomes: Outcome) -> Outcome:
    """Several outcomes, committed as one."""
    return Outcome(
        posts=tuple(post for outcome in outcomes for post in outcome.posts),
        records=tuple(record for outcome in outcomes for record in outcome.records),
        index=tuple(entry for outcome in outcomes for entry in outcome.index),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A deployment as it was loaded, and the revision of its record (0: it is new)."""

    deployment: Deployment | None
    revision: int


class Writer:
    """Turns steps into outcomes. `source` names this replica in the envelopes it writes."""

    def __init__(self, *, streams: Streams, source: str, tar_url: str, policy: Policy) -> None:
        self.keys = DeploymentKeys(streams.prefix)
        self._range_keys = RangeKeys(streams.prefix)
        self._streams = streams
        self._source = source
        self._tar_url = tar_url.rstrip("/")
        self._policy = policy
        self._log = get_logger(role="deployer")

    def outcome(
        self,
        stored: Stored,
        step: Step,
        now: datetime,
        *,
        cause: Envelope | None = None,
        afresh: bool = False,
        layers: Layers = NO_LAYERS,
    ) -> Outcome:
        """All that a step leads to. `afresh` writes every index entry again, whatever is thought to be there.

        `layers` are those of the images of which an archive is offered, as far as the registry has them.
        """
        before, after = stored.deployment, step.deployment
        parts = [self._effect(effect, after, now, cause, layers) for effect in step.effects]
        if before is None and after.engine_url is not None:
            parts.append(self._place(after, after.engine_url, now))
        if before == after and not afresh:
            return merged(*parts)
        self._log_ends(before, after)
        record = RecordWrite(
            self.keys.record(after.deployment_id),
            msgspec.json.encode(after),
            expected=stored.revision,
            expires_seconds=None if after.open else self._policy.keep_seconds,
        )
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
    ) -> Post:
        """One message of this replica."""
        envelope = Envelope(
            message=message,
            source=self._source,
            subject=about,
            time=now,
            correlation_id=correlation_id or (cause.correlation_id if cause else ""),
            causation_id=cause.id if cause else None,
            traceparent=cause.traceparent if cause else None,
        )
        return Post(stream, envelope, due)

    def shared(self, stream: str, message: Message, *, about: str, now: datetime, key: str, **more: str) -> Post:
        """One message that all replicas may write and that is said once per `key`."""
        envelope = Envelope(
            message=message, source=SHARED_SOURCE, subject=about, time=now, id=shared_id(about, key), **more
        )
        return Post(stream, envelope)

    def advance(
        self, message: DeploymentAdvance, now: datetime, *, correlation_id: str = "", due: datetime | None = None
    ) -> Post:
        """A timer, or a nudge, for a deployment."""
        later = due if due is not None and due > now else None
        return self.post(
            self._streams.deployer,
            message,
            about=message.deployment_id,
            now=now,
            correlation_id=correlation_id,
            due=later,
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
        """Something worth telling about a deployment as a whole: a line in the log, and progress for who watches it."""
        message = TransferProgress(
            transfer_id=deployment_id, reference="", kind="pull", phase="waiting", range_id=range_id, note=text
        )
        post = self.post(
            self._streams.progress, message, about=range_id, now=now, correlation_id=correlation_id, cause=cause
        )
        correlation_id = post.envelope.correlation_id
        self._log.warning(text, deployment=deployment_id, range=range_id, correlation_id=correlation_id)
        return Outcome(posts=(post,))

    def _effect(
        self, effect: Effect, after: Deployment, now: datetime, cause: Envelope | None, layers: Layers
    ) -> Outcome:
        withdrawn: tuple[RecordWrite, ...] = ()
        match effect:
            case AskPush():
                return Outcome(posts=(self._ask_push(effect, after, now),))
            case Tell(message=message):
                stream, about = self._streams.inbox(after.range_id), after.range_id
                if isinstance(message, TransferCancelled):
                    withdrawn = (RecordWrite(offer_key(self._streams.prefix, message.transfer_id), None),)
            case Say(message=message):
                stream, about = self._streams.deployments, after.deployment_id
            case OfferArchive():
                return self._offer(effect, after, now, cause, layers.get(effect.index, ()))
            case Wake(at=at):
                timer = DeploymentAdvance(deployment_id=after.deployment_id)
                return Outcome(posts=(self.advance(timer, now, correlation_id=after.correlation_id, due=at),))
            case Note(text=text):
                return self.remark(
                    text,
                    deployment_id=after.deployment_id,
                    range_id=after.range_id,
                    now=now,
                    correlation_id=after.correlation_id,
                    cause=cause,
                )
        said = self.post(stream, message, about=about, now=now, correlation_id=after.correlation_id, cause=cause)
        return Outcome(posts=(said,), records=withdrawn)

    def _ask_push(self, effect: AskPush, after: Deployment, now: datetime) -> Post:
        message = PushRequested(reference=effect.reference, image_id=effect.image_id, why="on_demand")
        moment = int(now.timestamp() // ASK_SECONDS)
        key = f"push/{effect.image_id}/{moment}"
        return self.shared(
            self._streams.images,
            message,
            about=effect.reference,
            now=now,
            key=key,
            correlation_id=after.correlation_id,
        )

    def _offer(
        self,
        effect: OfferArchive,
        after: Deployment,
        now: datetime,
        cause: Envelope | None,
        layers: tuple[Layer, ...],
    ) -> Outcome:
        image = after.images[effect.index]
        present = frozenset(effect.present) if effect.thin else frozenset[str]()
        held = tuple(dict.fromkeys(diff_id for diff_id in image.diff_ids if diff_id not in present))
        offer, token = Offer.make(
            transfer_id=effect.transfer_id,
            reference=image.reference,
            image_id=image.image_id or "",
            diff_ids=image.diff_ids,
            held=held,
            layout=effect.layout,
            now=now,
            lifetime_seconds=self._policy.offer_seconds,
            range_id=after.range_id,
            layers=layers,
        )
        message = LoadOffered(
            transfer_id=effect.transfer_id,
            reference=image.reference,
            image_id=offer.image_id,
            url=f"{self._tar_url}/transfers/{effect.transfer_id}",
            token=token,
            diff_ids=image.diff_ids,
            held=held,
            layout=effect.layout,
        )
        inbox = self._streams.inbox(after.range_id)
        said = self.post(
            inbox, message, about=after.range_id, now=now, correlation_id=after.correlation_id, cause=cause
        )
        key = offer_key(self._streams.prefix, effect.transfer_id)
        record = RecordWrite(key, offer.encode(), expires_seconds=self._policy.offer_seconds)
        return Outcome(posts=(said,), records=(record,))

    def _place(self, after: Deployment, engine_url: str, now: datetime) -> Outcome:
        place = EnginePlace(
            range_id=after.range_id, engine_url=engine_url, deployment_id=after.deployment_id, since=now
        )
        record = RecordWrite(self._range_keys.place(after.range_id), msgspec.json.encode(place))
        return Outcome(records=(record,), index=(IndexWrite(self._range_keys.places, after.range_id, now.timestamp()),))

    def _log_ends(self, before: Deployment | None, after: Deployment) -> None:
        for index, image in enumerate(after.images):
            if image.ended and (before is None or not before.images[index].ended):
                self._log_end(after, image)

    def _log_end(self, deployment: Deployment, image: ImageState) -> None:
        outcome = image.outcome()
        log = self._log.error if image.state == "failed" else self._log.info
        error = {"code": outcome.error.code, "why": outcome.error.message} if outcome.error else {}
        log(
            f"image {image.state}",
            image=image.reference,
            range=deployment.range_id,
            deployment=deployment.deployment_id,
            path=outcome.how,
            bytes=outcome.sent_bytes,
            layers_reused=outcome.layers_reused,
            seconds=round(outcome.seconds, 3),
            correlation_id=deployment.correlation_id,
            **error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every part of the deployer works with. `clock` gives aware times."""

    speaker: Speaker
    streams: Streams
    writer: Writer
    policy: Policy
    clock: Callable[[], datetime]
