"""The tar server and the agent together, over real HTTP on loopback, between engines in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from events.bus import Delivery
from events.envelope import Envelope
from events.messages import Failure, ImageFailed, ImageReady, LoadOffered, TarRequested, TransferCancelled
from services.adapters.memory_engine import Fault, MemoryEngine
from services.agent.pull import Patience
from services.core.images.image import Store
from services.errors import BadArchive, NoSpace
from services.ports import Chunks, EngineProgress
from tests.unit.services.agent.archive_server import BOTH, serving
from tests.unit.services.agent.scene import BASE, RANGE, REFERENCE, TOOLS, Scene, until


@pytest.mark.parametrize("store", BOTH)
async def test_an_offered_archive_is_loaded(store: Store, tmp_path: Path) -> None:
    """Fetched with the token, loaded as it streams, verified and named; what was received is what was sent."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.layers_reused, ready.layers_total) == ("loaded", 0, 2)
    assert ready.received_bytes > len(BASE) + len(TOOLS)
    found = await scene.engine.inspect(REFERENCE)
    assert found is not None
    assert (found.diff_ids, found.references) == (image.diff_ids, (REFERENCE,))
    assert scene.engine.config(REFERENCE) == scene.host.config(REFERENCE)
    last = (await scene.told())[-1]
    assert (last.kind, last.phase, last.done_bytes) == ("load", "done", last.total_bytes)


@pytest.mark.parametrize("store", BOTH)
async def test_a_thin_archive_holds_only_what_is_missing(store: Store, tmp_path: Path) -> None:
    """The base is in the range: its bytes are neither read on the host nor sent."""
    scene = Scene(store)
    scene.engine.add_image("base:1", [BASE])
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image, held=image.diff_ids[1:])
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.layers_reused) == ("loaded", 1)
    assert len(TOOLS) < ready.received_bytes < len(BASE)
    assert server.source.reads == [image.diff_ids[1]]


@pytest.mark.parametrize("store", BOTH)
async def test_another_config_on_known_layers_is_loaded_without_a_layer(store: Store, tmp_path: Path) -> None:
    """A config-only archive."""
    scene = Scene(store)
    scene.engine.add_image(REFERENCE, [BASE], author="before")
    image = scene.build(BASE, author="after")
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image, held=())
        ready = await scene.answer()
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.layers_reused) == ("loaded", 1)
    assert b"after" in scene.engine.config(REFERENCE)
    assert server.source.reads == []


@pytest.mark.parametrize("store", BOTH)
async def test_a_new_config_is_loaded_without_a_layer(store: Store, tmp_path: Path) -> None:
    """Asked to pull what lacks a config alone, the agent takes an archive of some thousand bytes."""
    scene = Scene(store)
    scene.engine.add_image("old:1", [BASE, TOOLS], author="first")
    image = scene.build(BASE, TOOLS, author="second")
    async with serving(scene, tmp_path) as server, scene.listening():
        await scene.say(await scene.pull_request(image))
        assert isinstance(await scene.answer(), TarRequested)
        await server.offered(image, held=())
        ready = await scene.answer(skip=1)
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.layers_reused, ready.layers_total) == ("loaded", 2, 2)
    assert ready.received_bytes < 20_000
    assert scene.engine.counts == {"load": 1}


@pytest.mark.parametrize("fault", ["away", "refused", "forgotten", "silent"])
async def test_a_config_that_does_not_come_leads_to_the_pull(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No tar server, no such offer, an archive of no use, or none in time: the registry has the image all the same."""
    monkeypatch.setattr("services.agent.transfers.CONFIG_SECONDS", 0.5)
    scene = Scene()
    scene.engine.add_image("old:1", [BASE, TOOLS], author="first")
    image = scene.build(BASE, TOOLS, author="second")
    if fault == "forgotten":
        scene.engine.faults["load"] = Fault(error=BadArchive("it cannot be used"))
    if fault == "silent":
        scene.engine.faults["load"] = Fault(stall=True)
    async with serving(scene, tmp_path) as server, scene.listening():
        await scene.say(await scene.pull_request(image))
        assert isinstance(await scene.answer(), TarRequested)
        url, token = await server.offer(image, held=())
        if fault == "away":
            url = "http://127.0.0.1:1/transfers/t1"
        if fault == "refused":
            token = "another"
        await scene.say(scene.load_offer(image, url, token, held=()))
        ready = await scene.answer(skip=1)
    assert isinstance(ready, ImageReady)
    assert (ready.how, ready.received_bytes, ready.layers_reused) == ("pulled", 0, 2)
    found = await scene.engine.inspect(REFERENCE)
    assert found is not None
    assert found.image_id == image.image_id


class Forgetting(MemoryEngine):
    """A load ends well and leaves nothing, as in a containerd store that lacks a layer which was left out."""

    @asynccontextmanager
    async def load(self, archive: Chunks) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        async with super().load(archive) as lines:
            yield lines
        self.store.remove_name(REFERENCE)


async def test_a_thin_archive_that_leaves_nothing_leads_to_a_whole_one(tmp_path: Path) -> None:
    """The engine said that all is well and does not have the image: the next archive leaves nothing out."""
    scene = Scene("containerd")
    scene.engine = Forgetting(store="containerd")
    scene.engine.add_image("base:1", [BASE])
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image, held=image.diff_ids[1:])
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert (asked.thin, asked.diff_ids, asked.reason.code) == (False, (), "wrong_content")
    assert "does not have it" in asked.reason.message


async def test_a_refused_thin_archive_leads_to_a_whole_one(tmp_path: Path) -> None:
    """The engine lacks a layer that was left out: it says so, keeps nothing, and the agent asks for all layers."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image, held=image.diff_ids[1:])
        asked = await scene.answer()
        assert isinstance(asked, TarRequested)
        assert (asked.thin, asked.diff_ids, asked.reason.code) == (False, (), "bad_archive")
        assert scene.engine.store.images == {}
        await server.offered(image)
        ready = await scene.answer(skip=1)
    assert isinstance(ready, ImageReady)


async def test_a_used_offer_makes_the_agent_ask_again(tmp_path: Path) -> None:
    """As after a crash in the middle of a load: the entry is handled again, its offer is spent."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server, scene.listening():
        url, token = await server.offer(image)
        assert (await server.get(url, token))[0] == 200
        await scene.say(scene.load_offer(image, url, token))
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert asked.reason.code == "offer_refused"


async def test_cancelling_a_load_stops_the_engine(tmp_path: Path) -> None:
    """In the middle of the stream: the engine's work ends, nothing stays."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server, scene.listening():
        server.source.gate = asyncio.Event()
        await server.offered(image)
        await until(lambda: scene.engine.working == ["load"])
        await scene.say(TransferCancelled(transfer_id="t1"))
        failed = await scene.answer()
        assert scene.engine.working == []
    assert isinstance(failed, ImageFailed)
    assert failed.error.code == "cancelled"
    assert scene.engine.store.images == {}


async def test_a_load_that_stands_still_is_ended(tmp_path: Path) -> None:
    """The agent does not wait for a server that sends nothing."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server, scene.listening(Patience(stall_seconds=0.2)):
        server.source.gate = asyncio.Event()
        await server.offered(image)
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert asked.reason.code == "stalled"


@pytest.mark.parametrize(("code", "retryable"), [("stalled", True), ("no_space", True), ("crashed", False)])
async def test_what_an_agent_gave_up_may_be_tried_again(code: str, retryable: bool) -> None:
    """A transfer that failed too often here is told as such; one that kills its agent is not to come again."""
    scene = Scene()
    request = scene.request(scene.build(BASE))
    registered = scene.agent().subscriptions()[0].handlers.find(LoadOffered)
    assert registered is not None
    envelope = Envelope(message=request, source="deployer@test", subject=RANGE)
    given_up = registered.given_up(Delivery(envelope, "inbox", "1-0"), Failure(code=code, message="too often"))
    (post,) = given_up.posts
    assert post.envelope.message == ImageFailed(
        transfer_id="t1", error=Failure(code=code, message="too often", retryable=retryable)
    )


@pytest.mark.parametrize(
    ("error", "code"), [(NoSpace("no space left"), "no_space"), (BadArchive("invalid tar"), "bad_archive")]
)
async def test_an_engine_that_cannot_take_a_whole_archive_fails(
    error: NoSpace | BadArchive, code: str, tmp_path: Path
) -> None:
    """There is no other way then."""
    scene = Scene()
    image = scene.build(BASE)
    scene.engine.faults["load"] = Fault(after_bytes=10, error=error)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        failed = await scene.answer()
    assert isinstance(failed, ImageFailed)
    assert failed.error.code == code


async def test_content_that_is_there_by_now_is_not_fetched(tmp_path: Path) -> None:
    """The offer is left unused."""
    scene = Scene()
    image = scene.build(BASE)
    scene.engine.add_image(REFERENCE, [BASE])
    async with serving(scene, tmp_path) as server, scene.listening():
        url, token = await server.offer(image)
        await scene.say(scene.load_offer(image, url, token))
        ready = await scene.answer()
        assert (await server.get(url, token))[0] == 200
    assert isinstance(ready, ImageReady)
    assert ready.how == "present"
