"""The tar server and the agent together, over real HTTP on loopback, between engines in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import aiohttp
import pytest

from events.bus import Outcome, RecordWrite
from events.envelope import Envelope
from events.messages import Failure, ImageFailed, ImageReady, TarRequested, TransferCancelled, TransferProgress
from events.task_group import TaskGroup
from services.adapters.memory_engine import Fault, MemoryEngine
from services.agent.fetching import fetch_in_turn
from services.agent.pulling import Patience
from services.core.images import EngineImage, Store
from services.core.offers import Offer, offer_key
from services.errors import BadArchive, LayerUnreadable, NoSpace
from services.exporting.exports import Exports
from services.exporting.image_reader import ImageReader
from services.exporting.spool import SpoolFolder
from services.ports import Chunks, EngineProgress, OpenLayer
from services.tar_server import TarServer
from tests.unit.services.agent.scene import APP, BASE, RANGE, REFERENCE, TOOLS, Scene, until

BOTH: list[Store] = ["classic", "containerd"]


@dataclass
class StoreSource:
    """Reads the layers of the host engine's twin. `gate` holds every layer up, `broken` ends it half-way."""

    engine: MemoryEngine
    knows_sizes: bool = True
    name: str = "store"
    gate: asyncio.Event | None = None
    broken: bool = False
    reads: list[str] = field(default_factory=list)

    async def config(self, image: EngineImage) -> bytes:
        return self.engine.config(image.local_id)

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        return len(self.engine.store.layers[diff_id]) if self.knows_sizes else None

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        self.reads.append(diff_id)
        yield self._chunks(self.engine.store.layers[diff_id])

    async def _chunks(self, content: bytes) -> Chunks:
        yield content[:100]
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise LayerUnreadable("the layer's file is gone")
        yield content[100:]


@dataclass
class StreamSource(StoreSource):
    """One stream of all layers, top layer first, without sizes beforehand, as `docker save` is."""

    knows_sizes: bool = False
    passes: int = 0

    @asynccontextmanager
    async def layers(self, image: EngineImage, diff_ids: Sequence[str]) -> AsyncIterator[AsyncIterator[OpenLayer]]:
        self.passes += 1
        yield self._opened(diff_ids)

    async def _opened(self, diff_ids: Sequence[str]) -> AsyncIterator[OpenLayer]:
        for diff_id in reversed(diff_ids):
            content = self.engine.store.layers[diff_id]
            yield OpenLayer(diff_id, len(content), self._chunks(content))


@dataclass
class Server:
    """A running tar server, and what a deployer would do with it."""

    scene: Scene
    source: StoreSource
    folder: SpoolFolder
    url: str = ""

    async def offer(
        self, image: EngineImage, transfer_id: str = "t1", *, lifetime_seconds: float = 60, **more: object
    ) -> tuple[str, str]:
        """Store an offer; its address and token."""
        what: dict[str, object] = {
            "reference": REFERENCE,
            "held": image.diff_ids,
            "layout": "docker" if self.scene.store == "classic" else "oci",
            "now": datetime.now(UTC),
            **more,
        }
        offer, token = Offer.make(
            transfer_id=transfer_id,
            image_id=image.local_id,
            diff_ids=image.diff_ids,
            lifetime_seconds=lifetime_seconds,
            **what,  # type: ignore[arg-type]
        )
        key = offer_key(self.scene.streams.prefix, transfer_id)
        await self.scene.bus.commit(Outcome(records=(RecordWrite(key, offer.encode()),)))
        return f"{self.url}/transfers/{transfer_id}", token

    async def offered(self, image: EngineImage, transfer_id: str = "t1", **more: object) -> None:
        """Offer an archive to the agent."""
        url, token = await self.offer(image, transfer_id, **more)  # type: ignore[arg-type]
        await self.scene.say(self.scene.load_offer(image, url, token, transfer_id=transfer_id, **more))

    async def get(self, url: str, token: str | None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            return response.status, await response.read()


@asynccontextmanager
async def serving(
    scene: Scene,
    folder: Path,
    *,
    limit_bytes: int = 1 << 30,
    stall_seconds: float = 5,
    linger_seconds: float = 0.5,
    limit: int = 2,
    patience_seconds: float = 20,
    source: StoreSource | None = None,
) -> AsyncIterator[Server]:
    source = source or StoreSource(scene.host)
    spools = SpoolFolder(folder, limit_bytes=limit_bytes, spare_bytes=0)
    reader = ImageReader(engine=scene.host, sources=[source], registry=scene.registry)
    exports = Exports(
        reader=reader, folder=spools, limit=limit, linger_seconds=linger_seconds, patience_seconds=patience_seconds
    )
    role = TarServer(
        speaker=scene.bus,
        prefix=scene.streams.prefix,
        exports=exports,
        listen="127.0.0.1:0",
        stall_seconds=stall_seconds,
    )
    async with TaskGroup() as group:
        running = group.create_task(role.run())
        try:
            yield Server(scene, source, spools, f"http://{await role.address()}")
        finally:
            running.cancel()


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


async def test_layers_come_from_the_registry_where_it_has_them(tmp_path: Path) -> None:
    """The host's engine is not read at all."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    await scene.publish(image)
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)
    assert server.source.reads == []


async def test_an_image_that_only_the_registry_has_can_be_exported(tmp_path: Path) -> None:
    """The host may be without it, or without an engine."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    await scene.publish(image)
    scene.host.away = True
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)


@pytest.mark.parametrize("store", BOTH)
async def test_sizes_need_not_be_known_beforehand(store: Store, tmp_path: Path) -> None:
    """The archive is sent without a length then, and is as whole."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server, scene.listening():
        server.source.knows_sizes = False
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)


@pytest.mark.parametrize("store", BOTH)
async def test_a_stream_of_layers_is_passed_once(store: Store, tmp_path: Path) -> None:
    """Layers that only one stream has are taken as they come, whatever their order."""
    scene = Scene(store)
    image = scene.build(BASE, TOOLS, APP)
    source = StreamSource(scene.host)
    async with serving(scene, tmp_path, source=source) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)
    assert (source.passes, source.reads) == (1, [])


async def test_one_export_feeds_all_that_want_the_same(tmp_path: Path) -> None:
    """Three readers at once, one reading of the host."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    async with serving(scene, tmp_path) as server:
        offers = [await server.offer(image, f"t{number}") for number in range(3)]
        answers = await asyncio.gather(*(server.get(url, token) for url, token in offers))
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
    assert server.source.reads == list(image.diff_ids)


async def test_another_reference_is_another_archive(tmp_path: Path) -> None:
    """The name is in the archive."""
    scene = Scene()
    image = scene.build(BASE)
    await scene.host.tag(REFERENCE, "other:1")
    async with serving(scene, tmp_path) as server:
        first = await server.get(*await server.offer(image, "t1"))
        second = await server.get(*await server.offer(image, "t2", reference="docker.io/library/other:1"))
    assert (first[0], second[0]) == (200, 200)
    assert first[1] != second[1]


async def test_a_reader_that_stands_still_is_cut_off_and_hurts_nobody(tmp_path: Path) -> None:
    """It gets a broken connection after its own timeout; the other one has long got everything."""
    scene = Scene()
    image = scene.build(bytes(40 * 1024 * 1024))
    async with serving(scene, tmp_path, stall_seconds=0.5) as server:
        (slow_url, slow_token), (url, token) = await server.offer(image, "t1"), await server.offer(image, "t2")
        headers = {"Authorization": f"Bearer {slow_token}"}
        async with aiohttp.ClientSession() as session, session.get(slow_url, headers=headers) as standing:
            assert standing.status == 200
            status, body = await server.get(url, token)
            assert (status, len(body)) == (200, standing.content_length)
            await until(lambda: server.folder.taken_bytes == 0)
            with pytest.raises(aiohttp.ClientError):
                await standing.read()


async def test_a_failure_in_mid_stream_is_a_broken_transfer(tmp_path: Path) -> None:
    """Never a clean end: with and without a length the client gets an error, and the agent asks again."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server, scene.listening():
        server.source.broken = True
        for number, knows in enumerate((True, False)):
            server.source.knows_sizes = knows
            url, token = await server.offer(image, f"direct{number}")
            with pytest.raises(aiohttp.ClientError):
                await server.get(url, token)
        await server.offered(image)
        asked = await scene.answer()
    assert isinstance(asked, TarRequested)
    assert (asked.reason.code, asked.thin) == ("transfer_failed", True)
    assert scene.engine.store.images == {}


async def test_a_source_that_gives_other_bytes_breaks_the_transfer(tmp_path: Path) -> None:
    """The last bytes go out only after the digest was right."""
    scene = Scene()
    image = scene.build(BASE)
    scene.host.store.layers[image.diff_ids[0]] = b"x" * len(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        with pytest.raises(aiohttp.ClientError):
            await server.get(url, token)


async def test_a_registry_that_breaks_off_is_continued_from_the_host(tmp_path: Path) -> None:
    """At the same byte, so that the reader notices nothing."""
    scene = Scene()
    image = scene.build(BASE)
    await scene.publish(image)
    reader_opened = scene.registry.open_blob

    @asynccontextmanager
    async def breaks(repository: str, digest: str) -> AsyncIterator[Chunks]:
        async with reader_opened(repository, digest) as chunks:
            if digest != image.diff_ids[0]:
                yield chunks
                return

            async def half() -> Chunks:
                async for chunk in chunks:
                    yield chunk[:500]
                    raise LayerUnreadable("the registry went away")

            yield half()

    scene.registry.open_blob = breaks  # type: ignore[method-assign]
    async with serving(scene, tmp_path) as server, scene.listening():
        await server.offered(image)
        assert isinstance(await scene.answer(), ImageReady)
    assert server.source.reads == [image.diff_ids[0]]


async def test_an_offer_is_good_once(tmp_path: Path) -> None:
    """Of two requests with one token one gets the archive, at once or one after the other."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        together = await asyncio.gather(server.get(url, token), server.get(url, token))
        later = await server.get(url, token)
    assert sorted(status for status, _ in together) == [200, 409]
    assert later[0] == 409
    assert b'"code":"offer_used"' in later[1]


async def test_wrong_requests_get_problems(tmp_path: Path) -> None:
    """No token, a wrong one, no such offer, an expired one: each its own status, as problem+json."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        late_url, late_token = await server.offer(image, "late", now=datetime.now(UTC) - timedelta(hours=1))
        statuses = [
            (await server.get(url, None))[0],
            (await server.get(url, token + "x"))[0],
            (await server.get(url + "0", token))[0],
            (await server.get(late_url, late_token))[0],
        ]
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.content_type == "application/problem+json"
        assert statuses == [401, 403, 404, 410]
        assert (await server.get(url, token))[0] == 200


async def test_an_image_that_is_nowhere_is_said_so_and_the_offer_stays(tmp_path: Path) -> None:
    """404 with the reason; what has no byte sent is not used."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path) as server:
        url, token = await server.offer(image)
        await scene.host.untag(REFERENCE)
        status, body = await server.get(url, token)
        assert status == 404
        assert b"build it again" in body
        scene.build(BASE)
        assert (await server.get(url, token))[0] == 200


async def test_no_room_for_the_spool_is_said_beforehand(tmp_path: Path) -> None:
    """507, and the same offer works once there is room."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, limit_bytes=1000) as server:
        url, token = await server.offer(image)
        status, body = await server.get(url, token)
    assert status == 507
    assert b"may hold 1000 bytes" in body
    async with serving(scene, tmp_path) as server:
        assert (await server.get(f"{server.url}/transfers/t1", token))[0] == 200


async def test_the_room_is_given_back_after_the_last_reader(tmp_path: Path) -> None:
    """Also when nobody read to the end, and the export itself is stopped then."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, linger_seconds=0.1) as server:
        server.source.gate = asyncio.Event()
        url, token = await server.offer(image)
        async with aiohttp.ClientSession() as session:
            response = await session.get(url, headers={"Authorization": f"Bearer {token}"})
            assert server.folder.taken_bytes > 0
            response.close()
        server.source.gate.set()
        await until(lambda: server.folder.taken_bytes == 0)


async def test_an_export_whose_reader_was_cancelled_waits_for_nobody(tmp_path: Path) -> None:
    """The offer was taken back: the room is free when its reader has gone, however long others would be waited for."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, linger_seconds=3600) as server:
        server.source.gate = asyncio.Event()
        url, token = await server.offer(image)
        async with aiohttp.ClientSession() as session:
            response = await session.get(url, headers={"Authorization": f"Bearer {token}"})
            write = RecordWrite(offer_key(scene.streams.prefix, "t1"), None)
            await scene.bus.commit(Outcome(records=(write,)))
            assert server.folder.taken_bytes > 0
            response.close()
        await until(lambda: server.folder.taken_bytes == 0)


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


async def test_an_archive_whose_turn_has_not_come_is_waited_for(tmp_path: Path) -> None:
    """Asked for again and again, told as waiting, no failed attempt: it arrives once a slot is free."""
    scene = Scene()
    first, second = scene.build(BASE, reference="first:1"), scene.build(TOOLS)
    async with (
        serving(scene, tmp_path, limit=1, patience_seconds=0.02) as server,
        scene.listening(),
        TaskGroup() as tasks,
    ):
        server.source.gate = asyncio.Event()
        url, token = await server.offer(first, "t0", reference="docker.io/library/first:1")
        standing = tasks.create_task(server.get(url, token))
        await until(lambda: server.folder.taken_bytes > 0)
        await server.offered(second)
        async with asyncio.timeout(10):
            async for entry in scene.bus.tail([scene.streams.range_progress(RANGE)], after="0"):
                progress = entry.envelope.message if entry.envelope else None
                if isinstance(progress, TransferProgress) and progress.phase == "waiting":
                    assert "free export slot" in progress.note
                    break
        assert server.source.reads == list(first.diff_ids)
        server.source.gate.set()
        ready = await scene.answer()
        assert (await standing)[0] == 200
    assert isinstance(ready, ImageReady)


async def test_ranges_with_different_layers_all_get_their_turn(tmp_path: Path) -> None:
    """Six archives of one image, each another set of layers, behind one slot: first come, first served, none fails."""
    scene = Scene()
    image = scene.build(BASE, TOOLS, APP)
    sets = [held for size in (1, 2) for held in combinations(image.diff_ids, size)]
    done: list[int] = []

    async def get(number: int) -> None:
        url, token = await server.offer(image, f"t{number}", held=sets[number])
        async with fetch_in_turn(url, token, patience=Patience(), waiting=lambda note: None) as fetched:
            assert [chunk async for chunk in fetched.chunks]
        done.append(number)

    async with serving(scene, tmp_path, limit=1, patience_seconds=0.01) as server:
        server.source.gate = asyncio.Event()
        async with TaskGroup() as tasks:
            for number in range(len(sets)):
                tasks.create_task(get(number))
            await until(lambda: server.folder.taken_bytes > 0)
            server.source.gate.set()
    assert sorted(done) == list(range(len(sets)))


async def test_a_full_spool_is_waited_for(tmp_path: Path) -> None:
    """Room that another export has is given back: the next one gets it. 503 until then, not 507."""
    scene = Scene()
    first, second = scene.build(BASE, reference="first:1"), scene.build(BASE, TOOLS)
    size = len(BASE) + len(TOOLS) + 20_000
    async with (
        serving(scene, tmp_path, limit_bytes=size, linger_seconds=1.5, patience_seconds=0.02) as server,
        TaskGroup() as tasks,
    ):
        server.source.gate = asyncio.Event()
        standing = tasks.create_task(
            server.get(*await server.offer(first, "t1", reference="docker.io/library/first:1"))
        )
        await until(lambda: server.folder.taken_bytes > 0)
        url, token = await server.offer(second, "t2")
        status, body = await server.get(url, token)
        assert status == 503
        assert b"room" in body
        server.source.gate.set()
        assert (await standing)[0] == 200
        async with fetch_in_turn(url, token, patience=Patience(), waiting=lambda note: None) as fetched:
            assert [chunk async for chunk in fetched.chunks]


@pytest.mark.parametrize("away", [False, True])
async def test_a_turn_that_never_comes_fails_and_may_be_tried_again(away: bool, tmp_path: Path) -> None:
    """Whether the tar server is busy for too long, or does not answer: the deployer may try on."""
    scene = Scene()
    first, second = scene.build(BASE, reference="first:1"), scene.build(TOOLS)
    patience = Patience(turn_seconds=0.3, away_seconds=0.0)
    async with (
        serving(scene, tmp_path, limit=1, patience_seconds=0.02) as server,
        scene.listening(patience),
        TaskGroup() as tasks,
    ):
        server.source.gate = asyncio.Event()
        url, token = await server.offer(first, "t0", reference="docker.io/library/first:1")
        tasks.create_task(server.get(url, token))
        await until(lambda: server.folder.taken_bytes > 0)
        if away:
            await scene.say(scene.load_offer(second, "http://127.0.0.1:1/transfers/t1", "token"))
        else:
            await server.offered(second)
        failed = await scene.answer()
        server.source.gate.set()
    assert isinstance(failed, ImageFailed)
    assert failed.error.retryable
    assert failed.error.code == ("tar_server_unavailable" if away else "exports_busy")


@pytest.mark.parametrize(("code", "retryable"), [("stalled", True), ("no_space", True), ("crashed", False)])
async def test_what_an_agent_gave_up_may_be_tried_again(code: str, retryable: bool) -> None:
    """A transfer that failed too often here is told as such; one that kills its agent is not to come again."""
    scene = Scene()
    request = scene.request(scene.build(BASE))
    give_up = scene.agent().subscriptions()[0].give_up
    envelope = Envelope(message=request, source="deployer@test", subject=RANGE)
    (post,) = give_up(envelope, Failure(code=code, message="too often")).posts
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
