"""The role on fakes: which events push, what is said afterwards, and what a prompt is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import (
    ImageBuilt,
    ImageImported,
    ImagePromoted,
    ImagePushed,
    ImagePushFailed,
    Message,
    Push,
    PushReason,
    PushRequested,
)
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.prompts import Prompt, prompt_id, prompt_index, prompt_key
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from services.registry_pusher.role import RegistryPusher
from tests.unit.services.layer_twins import TwinSource, layer

NAME = "docker.io/team/app:1"
NO_IMAGE = "sha256:" + "0" * 64
STREAMS = Streams("t")


class House:
    """One or more pushers on one memory bus, and what they said."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        self.engine = MemoryEngine(registries={self.registry.address: self.registry})
        self.bus = MemoryBus()
        self.auto = True
        self.asked: list[str] = []
        self.marks = 0

    def role(self) -> RegistryPusher:
        encodings = LayerEncodings(bus=self.bus, prefix="t")
        source = TwinSource(self.engine)
        push = ImagePush(
            engine=self.engine,
            registry=self.registry,
            sources=(source,),
            layers=LayerPush(registry=self.registry, sources=(source,), encodings=encodings),
            engine_registry=self.registry.address,
        )

        async def auto_push(reference: str) -> bool:
            self.asked.append(reference)
            return self.auto

        return RegistryPusher(
            push=push,
            registry=self.registry,
            encodings=encodings,
            streams=STREAMS,
            source="registry-pusher@test",
            auto_push=auto_push,
        )

    @asynccontextmanager
    async def running(self, replicas: int = 1) -> AsyncIterator[None]:
        async with TaskGroup() as tasks:
            running = [
                tasks.create_task(Worker(self.bus, subscription, name=f"w{number}").run())
                for number in range(replicas)
                for subscription in self.role().subscriptions()
            ]
            yield
            for one in running:
                one.cancel()

    async def say(self, message: Message, count: int = 1) -> Envelope:
        envelope = Envelope(message=message, source="test", subject=NAME)
        await self.bus.publish(STREAMS.images, envelope)
        for _ in range(count - 1):
            await self.bus.publish(STREAMS.images, Envelope(message=message, source="test", subject=NAME))
        return envelope

    async def heard(self, count: int = 1) -> list[Envelope]:
        """The first `count` outcomes."""
        found: list[Envelope] = []
        async with asyncio.timeout(10):
            async for entry in self.bus.tail([STREAMS.images], after="0"):
                if entry.envelope and isinstance(entry.envelope.message, ImagePushed | ImagePushFailed):
                    found.append(entry.envelope)
                    if len(found) == count:
                        break
        return found

    async def handled(self) -> None:
        """Wait until nothing of this reference is left to handle, by asking for a content that it never has."""
        self.marks += 1
        mark = f"sha256:{self.marks:064x}"
        await self.say(PushRequested(reference=NAME, image_id=mark))
        async with asyncio.timeout(10):
            async for entry in self.bus.tail([STREAMS.images], after="0"):
                said = entry.envelope.message if entry.envelope else None
                if isinstance(said, ImagePushFailed) and said.image_id == mark:
                    return


@pytest.fixture
def house() -> House:
    return House()


@pytest.mark.parametrize("kind", [ImageBuilt, ImageImported, ImagePromoted])
async def test_an_image_that_appeared_is_pushed_and_said_so(
    house: House, kind: type[ImageBuilt | ImageImported | ImagePromoted]
) -> None:
    """The outcome carries the cause and the correlation of the event that led to it."""
    image = house.engine.add_image(NAME, [layer("a")])
    assert image.image_id is not None
    async with house.running():
        cause = await house.say(kind(reference="team/app:1", image_id=image.image_id))
        (said,) = await house.heard()
    assert isinstance(said.message, ImagePushed)
    assert (said.message.reference, said.message.image_id) == (NAME, image.image_id)
    assert (said.causation_id, said.correlation_id) == (cause.id, cause.correlation_id)
    assert said.source == "registry-pusher@test"


@pytest.mark.parametrize(
    ("push", "auto", "pushed"),
    [("auto", True, True), ("auto", False, False), ("always", False, True), ("never", True, False)],
)
async def test_the_publishers_choice_is_followed(house: House, push: Push, auto: bool, pushed: bool) -> None:
    """`auto` follows the setting as it is then; always and never do not care."""
    house.engine.add_image(NAME, [layer("a")])
    house.auto = auto
    async with house.running():
        await house.say(ImageBuilt(reference=NAME, image_id=NO_IMAGE, push=push))
        await house.handled()
    assert (await house.registry.manifest("team/app", "1") is not None) == pushed


async def test_auto_push_is_asked_by_the_full_name(house: House) -> None:
    """A rule for a pattern sees what the image is called, however it was written."""
    house.engine.add_image(NAME, [layer("a")])
    async with house.running():
        await house.say(ImageBuilt(reference="team/app:1", image_id=NO_IMAGE, push="auto"))
        await house.handled()
    assert house.asked == ["docker.io/team/app:1"]


async def test_ask_makes_one_prompt_and_a_push_answers_it(house: House) -> None:
    """Asked twice is one prompt, with the newest content; the push that answers it takes it away."""
    image = house.engine.add_image(NAME, [layer("a")])
    assert image.image_id is not None
    async with house.running():
        await house.say(ImageBuilt(reference=NAME, image_id=NO_IMAGE, push="ask"))
        cause = await house.say(ImageBuilt(reference=NAME, image_id=image.image_id, push="ask", size_bytes=7))
        await house.handled()
        assert await house.bus.members(prompt_index("t")) == [prompt_id(NAME)]
        record = await house.bus.load(prompt_key("t", prompt_id(NAME)).name)
        assert record is not None
        prompt = msgspec.json.decode(record.value, type=Prompt)
        assert (prompt.reference, prompt.image_id, prompt.size_bytes) == (NAME, image.image_id, 7)
        assert prompt.correlation_id == cause.correlation_id
        assert await house.registry.manifest("team/app", "1") is None
        await house.say(PushRequested(reference="team/app:1", why="prompt"))
        await house.handled()
    assert await house.registry.manifest("team/app", "1") is not None
    assert await house.bus.members(prompt_index("t")) == []
    assert await house.bus.load(prompt_key("t", prompt_id(NAME)).name) is None


async def test_ten_requests_and_two_replicas_make_one_push(house: House) -> None:
    """One of them sends; the nine others say that it is present, with the same manifest."""
    house.engine.add_image(NAME, [layer("a", 100_000), layer("b", 100_000)])
    async with house.running(replicas=2):
        await house.say(PushRequested(reference=NAME), count=10)
        said = [one.message for one in await house.heard(10)]
    pushed = [one for one in said if isinstance(one, ImagePushed)]
    assert sorted(one.method for one in pushed) == ["layers"] + ["present"] * 9
    assert len({one.manifest_digest for one in pushed}) == 1
    assert len(house.registry.uploaded) == 3


async def test_what_cannot_be_pushed_is_said_once_and_kept(house: House) -> None:
    """An image that is not there: one push_failed with the reason, and a dead letter."""
    async with house.running():
        await house.say(PushRequested(reference=NAME))
        (said,) = await house.heard()
    assert isinstance(said.message, ImagePushFailed)
    assert (said.message.error.code, said.message.reference) == ("not_found", NAME)
    letters = [entry async for entry in house.bus.tail([STREAMS.dead], after="0", follow=False)]
    assert len(letters) == 1


async def test_a_bad_reference_is_refused_with_the_reason(house: House) -> None:
    """Nobody's mistake stops the role."""
    async with house.running():
        await house.say(PushRequested(reference="Team/App"))
        (said,) = await house.heard()
    assert isinstance(said.message, ImagePushFailed)
    assert said.message.error.code == "bad_reference"


async def test_on_demand_hears_at_once_that_the_registry_is_away(house: House) -> None:
    """A deployment has another way to go: it is told, not kept waiting."""
    house.engine.add_image(NAME, [layer("a")])
    house.registry.away = True
    async with house.running():
        await house.say(PushRequested(reference=NAME, why="on_demand"))
        (said,) = await house.heard()
    assert isinstance(said.message, ImagePushFailed)
    assert (said.message.error.code, said.message.error.retryable) == ("registry_unavailable", True)


@pytest.mark.parametrize("why", ["manual", "auto", "prompt"])
async def test_others_wait_until_the_registry_is_back(house: House, why: PushReason) -> None:
    """Nothing is lost while the registry is away; the push happens when it is back."""
    house.engine.add_image(NAME, [layer("a")])
    house.registry.away = True
    async with house.running():
        await house.say(PushRequested(reference=NAME, why=why))
        await house.say(PushRequested(reference="other:1", why="on_demand"))
        (first,) = await house.heard()
        assert isinstance(first.message, ImagePushFailed)
        house.registry.away = False
        _, said = await house.heard(2)
    assert isinstance(said.message, ImagePushed)


async def test_another_content_than_wanted_is_told(house: House) -> None:
    """A deployment that waits for one image id hears that the tag means another now."""
    house.engine.add_image(NAME, [layer("a")])
    async with house.running():
        await house.say(PushRequested(reference=NAME, image_id=NO_IMAGE, why="on_demand"))
        (said,) = await house.heard()
    assert isinstance(said.message, ImagePushFailed)
    assert (said.message.error.code, said.message.image_id) == ("rebuilt", NO_IMAGE)
