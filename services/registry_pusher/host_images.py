"""Commands about images that are there already: adoption, and the host engine's copies of what the registry has.

Consumes `image.adopt_requested.v1`, `image.reclaim_requested.v1`, `image.fetch_requested.v1` and `image.pushed.v1` from
the images stream (group `host-images`, apart from pushes: an adoption of thousands of images holds up none); answers
there. After a push the rules of `services.core.images.reclaim_rules` decide whether the host's copy goes, at once or by
a timer. Every step may be repeated.
"""

from __future__ import annotations

import glob
from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

from events.bus import NOTHING, BusClient, Delivery, Outcome, Post
from events.messages import (
    Adoption,
    AdoptRequested,
    Failure,
    FetchRequested,
    ImageFetched,
    ImagePushed,
    ImagesAdopted,
    ImagesReclaimed,
    Message,
    PushRequested,
    ReclaimRequested,
)
from events.streams import Streams
from events.subscription import Handlers, Subscription
from services.core.images.reclaim_rules import ReclaimRules, reclaim_key
from services.errors import BadInput, TransferFailed
from services.registry_pusher.adoption import FoundTag, HostAdoption, RegistryAdoption, summed
from services.registry_pusher.host_reclaim import HostReclaim
from services.registry_pusher.host_routing import HostRouting
from services.runtime.telemetry import get_logger

GROUP = "host-images"
_AnyDelivery = Delivery[AdoptRequested] | Delivery[ReclaimRequested] | Delivery[FetchRequested]
#: So many images are taken up, and listed, by one command.
LIMIT = 1000
#: A push of less says nothing about speed.
_TELLING_BYTES = 1024 * 1024


class HostImages:
    """The handlers of the group."""

    def __init__(
        self,
        *,
        host: HostAdoption,
        registry: RegistryAdoption,
        reclaim: HostReclaim,
        bus: BusClient,
        streams: Streams,
        source: str,
        hosts: HostRouting | None = None,
        lease_seconds: float = 30.0,
    ) -> None:
        self._hosts = hosts
        self._host = host
        self._registry = registry
        self._reclaim = reclaim
        self._bus = bus
        self._streams = streams
        self._source = source
        self._lease_seconds = lease_seconds
        self._bytes_per_second: float | None = None
        self._log = get_logger(role="registry-pusher")

    def subscription(self) -> Subscription:
        return Subscription(
            group=GROUP,
            streams=lambda: (self._streams.images, *(self._hosts.inbox if self._hosts is not None else ())),
            handlers=Handlers()
            .on(AdoptRequested, self._adopt, key=lambda _: "adopt", give_up=self._adopt_failed)
            .on(ReclaimRequested, self._reclaim_requested, key=lambda _: "reclaim", give_up=self._reclaim_failed)
            .on(FetchRequested, self._fetch, key=lambda one: one.message.reference, give_up=self._fetch_failed)
            .on(ImagePushed, self._pushed, key=None, give_up=None),
            slots=3,
            lease_seconds=self._lease_seconds,
            dead_stream=self._streams.dead,
        )

    # ---- adoption ----

    async def _adopt(self, delivery: Delivery[AdoptRequested]) -> Outcome:
        if (elsewhere := await self._elsewhere(delivery)) is not None:
            return elsewhere
        request, posts = delivery.message, list[Post]()
        found: list[tuple[Adoption, FoundTag | None]] = []
        if request.origin != "registry":
            found += [(one, None) for one in await self._host.found(request.patterns)]
        if request.origin != "host":
            found += await self._registry.found(request.patterns)
        new = [one for one in found if one[0].state == "new"]
        images = [said for said, _ in found if said.state != "new"]
        for said, tag in new[:LIMIT]:
            if request.dry_run:
                images.append(said)
            elif tag is None:
                posts.append(await self._push_command(delivery, said.reference))
                images.append(said)
            else:
                images.append(await self._take_up(delivery, said, tag, posts))
        size_bytes, missing_bytes = summed(images)
        answer = ImagesAdopted(
            dry_run=request.dry_run,
            new=sum(one.state == "new" for one in images),
            present=sum(one.state == "present" for one in images),
            left=max(0, len(new) - LIMIT),
            size_bytes=size_bytes,
            missing_bytes=missing_bytes,
            estimated_seconds=self._seconds(missing_bytes),
            images=tuple(sorted(images, key=lambda one: (one.state == "present", one.reference))[:LIMIT]),
        )
        self._log.info("adopted", dry_run=answer.dry_run, new=answer.new, present=answer.present, left=answer.left)
        return Outcome(posts=(*posts, self._post(delivery, answer)))

    async def _take_up(
        self, delivery: Delivery[AdoptRequested], said: Adoption, tag: FoundTag, posts: list[Post]
    ) -> Adoption:
        """One image of the registry; what cannot be taken up is said, and the others go on."""
        try:
            pushed = await self._registry.adopt(tag)
        except (BadInput, TransferFailed) as problem:
            return Adoption(
                reference=said.reference,
                origin="registry",
                state="unusable",
                found_as=said.found_as,
                note=str(problem)[:200],
            )
        posts.append(self._post(delivery, pushed, pushed.reference))
        return said

    async def _push_command(self, delivery: Delivery[AdoptRequested], reference: str) -> Post:
        """With an id of its own for each image, so that a command that is repeated asks once."""
        host = await self._hosts.mine() if self._hosts is not None else None
        envelope = self._post(delivery, PushRequested(reference=reference, why="auto", host=host), reference).envelope
        name = f"adopt/{delivery.envelope.id}/{reference}"
        return Post(self._streams.images, envelope.with_id(str(uuid5(NAMESPACE_URL, name))))

    def _seconds(self, missing_bytes: int) -> float | None:
        rate = self._bytes_per_second
        return None if rate is None else round(missing_bytes / rate, 1)

    def _adopt_failed(self, delivery: Delivery[AdoptRequested], failure: Failure) -> Outcome:
        return Outcome(posts=(self._post(delivery, ImagesAdopted(dry_run=delivery.message.dry_run, error=failure)),))

    # ---- the host's copies ----

    async def _pushed(self, delivery: Delivery[ImagePushed]) -> Outcome:
        """Reclaim the host engine's copy by the rules: at once, or when the rule's days have passed."""
        pushed = delivery.message
        if pushed.sent_bytes >= _TELLING_BYTES and pushed.seconds > 0:
            self._bytes_per_second = pushed.sent_bytes / pushed.seconds
        days = (await self._rules()).after_days(pushed.reference)
        if days is None:
            return NOTHING
        command = ReclaimRequested(patterns=(glob.escape(pushed.reference),), why="pushed", host=pushed.host)
        envelope = delivery.envelope.causes(command, source=self._source, subject=pushed.reference)
        envelope = envelope.with_id(str(uuid5(NAMESPACE_URL, f"reclaim/{delivery.envelope.id}")))
        due = delivery.envelope.time + timedelta(days=days) if days else None
        return Outcome(posts=(Post(self._streams.images, envelope, due=due),))

    async def _reclaim_requested(self, delivery: Delivery[ReclaimRequested]) -> Outcome:
        if (elsewhere := await self._elsewhere(delivery)) is not None:
            return elsewhere
        request = delivery.message
        rules = await self._rules()
        named = await self._reclaim.named(request.patterns)
        if request.why != "manual":
            named = [one for one in named if rules.after_days(str(one[0])) is not None]
        images = [
            await self._reclaim.reclaim(reference, image, dry_run=request.dry_run) for reference, image in named[:LIMIT]
        ]
        freed = sum(one.freed_bytes for one in images)
        self._log.info("reclaimed", why=request.why, dry_run=request.dry_run, images=len(images), freed=freed)
        answer = ImagesReclaimed(dry_run=request.dry_run, freed_bytes=freed, images=tuple(images))
        return Outcome(posts=(self._post(delivery, answer),))

    def _reclaim_failed(self, delivery: Delivery[ReclaimRequested], failure: Failure) -> Outcome:
        answer = ImagesReclaimed(dry_run=delivery.message.dry_run, error=failure)
        return Outcome(posts=(self._post(delivery, answer),))

    async def _fetch(self, delivery: Delivery[FetchRequested]) -> Outcome:
        if (elsewhere := await self._elsewhere(delivery)) is not None:
            return elsewhere
        answer = await self._reclaim.fetch(delivery.message)
        self._log.info("fetched", image=answer.reference, present=answer.present, seconds=answer.seconds)
        return Outcome(posts=(self._post(delivery, answer, answer.reference),))

    def _fetch_failed(self, delivery: Delivery[FetchRequested], failure: Failure) -> Outcome:
        reference = delivery.message.reference
        return Outcome(posts=(self._post(delivery, ImageFetched(reference=reference, error=failure), reference),))

    # ---- inside ----

    async def _elsewhere(self, delivery: _AnyDelivery) -> Outcome | None:
        """What is for another host goes to its inbox, under its id; None for what is done here."""
        host = delivery.message.host
        if self._hosts is None or host is None or host == await self._hosts.mine():
            return None
        return Outcome(posts=(Post(self._streams.host_inbox(host), delivery.envelope),))

    async def _rules(self) -> ReclaimRules:
        return (await reclaim_key(self._streams.prefix).load(self._bus)).value or ReclaimRules()

    def _post(self, delivery: _AnyDelivery, message: Message, subject: str = "host") -> Post:
        return Post(self._streams.images, delivery.envelope.causes(message, source=self._source, subject=subject))
