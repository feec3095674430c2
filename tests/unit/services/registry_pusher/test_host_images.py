"""Adoption, host reclaim and fetching on fakes: what is taken up, what may be freed, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
import pytest

from events.bus import Delivery, Outcome
from events.envelope import Envelope
from events.messages import (
    AdoptRequested,
    FetchRequested,
    ImageFetched,
    ImagePushed,
    ImagesAdopted,
    ImagesReclaimed,
    Message,
    PushRequested,
    ReclaimRequested,
)
from events.records import ANY
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.core.images.manifests import OCI_CONFIG, Descriptor, Manifest, sha256
from services.core.images.reclaim_rules import ReclaimRule, ReclaimRules, reclaim_key
from services.core.images.references import Reference
from services.registry_pusher.adoption import HostAdoption, RegistryAdoption
from services.registry_pusher.host_images import HostImages
from services.registry_pusher.host_reclaim import HostReclaim
from tests.unit.services.layer_twins import INDEX
from tests.unit.services.registry_pusher.site import NAME, Setup

STREAMS = Streams("t")
WEB = "docker.io/library/web:1"
M = TypeVar("M", bound=Message)


class Site(Setup):
    """A host engine and a registry, with the group at work."""

    def group(self) -> HostImages:
        return HostImages(
            host=HostAdoption(
                engine=self.engine,
                registry=self.registry,
                push=self.push,
                sources=(self.source,),
                encodings=self.encodings,
            ),
            registry=RegistryAdoption(registry=self.registry, bus=self.bus, prefix="t"),
            reclaim=HostReclaim(
                engine=self.engine, registry=self.registry, push=self.push, engine_registry="registry:5000"
            ),
            bus=self.bus,
            streams=STREAMS,
            source="registry-pusher@test",
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with TaskGroup() as tasks:
            worker = tasks.create_task(Worker(self.bus, self.group().subscription(), name="w").run())
            yield
            worker.cancel()

    async def say(self, message: Message) -> str:
        envelope = Envelope(message=message, source="test", subject=NAME)
        await self.bus.publish(STREAMS.images, envelope)
        return envelope.id

    async def heard(self, kind: type[M], number: int = 1) -> M:
        """The answer of that kind, the first or a later one."""
        async with asyncio.timeout(10):
            async for entry in self.bus.tail([STREAMS.images], after="0"):
                if entry.envelope is not None and isinstance(entry.envelope.message, kind):
                    number -= 1
                    if not number:
                        return entry.envelope.message
        raise AssertionError("a tail that follows does not end")

    async def ask(self, message: Message, kind: type[M]) -> M:
        async with self.running():
            await self.say(message)
            return await self.heard(kind)

    async def published(self, kind: type[M]) -> list[M]:
        found = [entry async for entry in self.bus.tail([STREAMS.images], after="0", follow=False)]
        return [one.envelope.message for one in found if one.envelope and isinstance(one.envelope.message, kind)]

    async def allow(self, *rules: ReclaimRule) -> None:
        write = reclaim_key("t").write(ReclaimRules(rules=rules), expected=ANY)
        await self.bus.commit(Outcome(records=(write,)))

    async def foreign(self, repository: str, tag: str, content: bytes = b"layer") -> Manifest:
        """An image as `docker push` leaves it in the registry, without a word to us."""
        diff_id = sha256(content)
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
        config = msgspec.json.encode(document)
        for blob in (content, config):
            await self.registry.put_blob(repository, sha256(blob), len(blob), _chunks(blob))
        layer = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=diff_id, size=len(content))
        described = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
        manifest = Manifest.write(described, (layer,))
        await self.registry.put_manifest(repository, tag, manifest)
        return manifest


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
def site() -> Site:
    return Site()


# ---- adoption ----


async def test_images_of_the_host_are_taken_up_by_pattern(site: Site) -> None:
    """A familiar name fits as well; each becomes a push of its own."""
    site.engine.add_image(WEB, [b"shared", b"web"])
    site.engine.add_image(NAME, [b"shared", b"app"])
    site.engine.add_image("docker.io/other/x:1", [b"x"])
    said = await site.ask(AdoptRequested(patterns=("web:*", "docker.io/team/*"), origin="host"), ImagesAdopted)
    assert [one.reference for one in said.images] == [WEB, NAME]
    assert (said.new, said.missing_bytes, said.left) == (2, len(b"sharedwebapp"), 0)
    assert {one.reference for one in await site.published(PushRequested)} == {WEB, NAME}


async def test_a_dry_run_changes_nothing(site: Site) -> None:
    """It tells sizes, and no push is asked for."""
    site.engine.add_image(WEB, [b"web"])
    await site.foreign("nginx", "1")
    said = await site.ask(AdoptRequested(patterns=("*",), dry_run=True), ImagesAdopted)
    assert (said.new, said.dry_run) == (2, True)
    assert await site.published(PushRequested) == []
    assert await site.registry.manifest("library/nginx", "1") is None


async def test_what_the_registry_has_is_present(site: Site) -> None:
    """So the same command again goes on where it broke off."""
    site.engine.add_image(WEB, [b"web"])
    await site.push.push(WEB)
    said = await site.ask(AdoptRequested(patterns=("*",), origin="host"), ImagesAdopted)
    assert (said.new, said.present) == (0, 1)
    assert await site.published(PushRequested) == []


async def test_other_content_under_the_name_is_kept(site: Site) -> None:
    """What somebody pushed there is not overwritten by what the host has, and the other way round."""
    site.engine.add_image(WEB, [b"web"])
    other = await site.foreign("library/web", "1")
    await site.foreign("web", "1", b"a third")
    said = await site.ask(AdoptRequested(patterns=("web:1",)), ImagesAdopted)
    states = {(one.origin, one.found_as): one.state for one in said.images}
    assert states == {("host", ""): "other", ("registry", "library/web:1"): "new", ("registry", "web:1"): "other"}
    there = await site.registry.manifest("library/web", "1")
    assert there is not None
    assert there[1].digest == other.digest


async def test_an_image_under_upstreams_name_is_mounted_under_ours(site: Site) -> None:
    """No byte is uploaded again; the same manifest answers, and it is announced like a push."""
    manifest = await site.foreign("nginx", "1.27")
    uploads = len(site.registry.uploaded)
    said = await site.ask(AdoptRequested(patterns=("nginx:*",), origin="registry"), ImagesAdopted)
    assert [(one.reference, one.state, one.found_as) for one in said.images] == [
        ("docker.io/library/nginx:1.27", "new", "nginx:1.27")
    ]
    assert len(site.registry.uploaded) == uploads
    there = await site.registry.manifest("library/nginx", "1.27")
    assert there is not None
    assert there[1].digest == manifest.digest
    announced = await site.heard(ImagePushed)
    assert (announced.reference, announced.manifest_digest) == ("docker.io/library/nginx:1.27", manifest.digest)


async def test_what_is_no_image_is_told_and_the_rest_goes_on(site: Site) -> None:
    """An index has no image of its own to announce."""
    site.registry.foreign["library/index", "1"] = INDEX
    await site.foreign("library/web", "1")
    said = await site.ask(AdoptRequested(patterns=("*",), origin="registry"), ImagesAdopted)
    assert {one.reference: one.state for one in said.images} == {
        "docker.io/library/index:1": "unusable",
        WEB: "new",
    }


async def test_the_estimate_is_from_the_last_pushes(site: Site) -> None:
    """Before one was seen there is none."""
    site.engine.add_image(WEB, [b"web" * 1000])
    request = AdoptRequested(patterns=("*",), origin="host", dry_run=True)
    pushed = ImagePushed(
        reference=NAME,
        repository="team/app",
        tag="1",
        manifest_digest=sha256(b"m"),
        image_id=sha256(b"c"),
        sent_bytes=3_000_000,
        seconds=1.0,
    )
    async with site.running():
        await site.say(request)
        assert (await site.heard(ImagesAdopted)).estimated_seconds is None
        await site.say(pushed)
        await site.say(ReclaimRequested(patterns=("none",)))
        await site.heard(ImagesReclaimed)
        await site.say(request)
        assert (await site.heard(ImagesAdopted, 2)).estimated_seconds == 0.0


# ---- reclaim ----


async def test_a_copy_goes_once_the_registry_has_it(site: Site) -> None:
    """By hand no rule is needed."""
    image = site.engine.add_image(WEB, [b"web"])
    await site.push.push(WEB)
    said = await site.ask(ReclaimRequested(patterns=("web:1",)), ImagesReclaimed)
    assert [(one.reference, one.freed) for one in said.images] == [(WEB, True)]
    assert said.freed_bytes == image.size_bytes
    assert await site.engine.inspect(WEB) is None


async def test_the_last_copy_stays(site: Site) -> None:
    """The registry does not have it, has another, or has it without a layer."""
    site.engine.add_image(WEB, [b"web"])
    site.engine.add_image(NAME, [b"app"])
    lost = site.engine.add_image("docker.io/team/lost:1", [b"lost"])
    await site.foreign("library/web", "1")
    await site.push.push("docker.io/team/lost:1")
    site.registry.lose(lost.diff_ids[0])
    said = await site.ask(ReclaimRequested(patterns=("*",)), ImagesReclaimed)
    assert {(one.freed, one.reason) for one in said.images} == {(False, "the registry does not have this content")}
    assert len(said.images) == 3


async def test_a_damaged_copy_in_the_registry_counts_for_nothing(site: Site) -> None:
    """Its bytes are read back before the host's go: a size that is right proves nothing."""
    image = site.engine.add_image(WEB, [b"web"])
    await site.push.push(WEB)
    site.registry._content[image.diff_ids[0]] = b"wex"
    said = await site.ask(ReclaimRequested(patterns=("*",)), ImagesReclaimed)
    assert not said.images[0].freed
    assert "cannot be read" in said.images[0].reason
    assert await site.engine.inspect(WEB) is not None


async def test_an_image_in_use_stays(site: Site) -> None:
    """The engine refuses, and is not forced."""
    site.engine.add_image(WEB, [b"web"])
    site.engine.add_container("user", WEB, {})
    await site.push.push(WEB)
    said = await site.ask(ReclaimRequested(patterns=("*",)), ImagesReclaimed)
    assert not said.images[0].freed
    assert said.images[0].reason.startswith("it is in use")


async def test_a_push_frees_what_a_rule_allows_and_nothing_else(site: Site) -> None:
    """The first rule that fits decides, also where it says that the copy is kept."""
    for name in (WEB, NAME):
        site.engine.add_image(name, [name.encode()])
    await site.allow(ReclaimRule(pattern="*/team/*", after_days=None), ReclaimRule(pattern="*"))
    async with site.running():
        for name in (NAME, WEB):
            await site.say(await site.push.push(name))
        assert [one.reference for one in (await site.heard(ImagesReclaimed)).images] == [WEB]
    assert await site.engine.inspect(NAME) is not None


async def test_a_rule_with_days_waits_for_them(site: Site) -> None:
    """The command is there, and due when they are over."""
    site.engine.add_image(WEB, [b"web"])
    await site.allow(ReclaimRule(pattern="*", after_days=7.0))
    async with site.running():
        await site.say(await site.push.push(WEB))
        await site.say(ReclaimRequested(patterns=("none",), why="pressure"))
        assert (await site.heard(ImagesReclaimed)).images == ()
    assert await site.engine.inspect(WEB) is not None
    due = [post.due for post in (await site.group()._pushed(_delivery(await site.push.push(WEB)))).posts]
    assert due[0] is not None
    assert due[0] > datetime.now(UTC) + timedelta(days=6)


def _delivery(pushed: ImagePushed) -> Delivery[ImagePushed]:
    return Delivery(Envelope(message=pushed, source="test", subject=NAME), STREAMS.images, "1-0")


async def test_under_pressure_rules_hold_and_their_days_do_not(site: Site) -> None:
    """What no rule is about stays even then."""
    for name in (WEB, NAME):
        site.engine.add_image(name, [name.encode()])
        await site.push.push(name)
    await site.allow(ReclaimRule(pattern="*/team/*", after_days=30.0))
    said = await site.ask(ReclaimRequested(patterns=("*",), why="pressure"), ImagesReclaimed)
    assert [(one.reference, one.freed) for one in said.images] == [(NAME, True)]


# ---- fetch ----


async def test_a_copy_comes_back_on_demand(site: Site) -> None:
    """With the same id, under its name alone."""
    image = site.engine.add_image(WEB, [b"web"])
    await site.push.push(WEB)
    await site.engine.untag(WEB)
    said = await site.ask(FetchRequested(reference="web:1"), ImageFetched)
    assert (said.reference, said.image_id, said.present, said.error) == (WEB, image.image_id, False, None)
    back = await site.engine.inspect(WEB)
    assert back is not None
    assert (back.references, back.repo_digests) == ((WEB,), ())


async def test_what_is_there_is_not_fetched(site: Site) -> None:
    """Not even looked for in the registry."""
    site.engine.add_image(WEB, [b"web"])
    assert (await site.ask(FetchRequested(reference=WEB), ImageFetched)).present


async def test_what_the_registry_lacks_cannot_come_back(site: Site) -> None:
    """The answer says so."""
    said = await site.ask(FetchRequested(reference=str(Reference.parse("none:1"))), ImageFetched)
    assert said.error is not None
    assert said.error.code == "not_found"
