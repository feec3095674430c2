"""Live events over HTTP: snapshot, changes, resumption, reset, and the end of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from events.envelope import Envelope
from events.messages import DeploymentRequested, ImageDeleted, Message, TransferProgress
from events.task_group import TaskGroup
from services.api.events import endpoint
from services.api.events.broadcast import Broadcast, Closed, Lagged
from services.api.events.frames import Positions, frame
from services.queries.read_model.mirror import Change
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS

NAMES = {"images": "x", "dead": "y"}
DELETED = ImageDeleted(reference="docker.io/library/web:1", manifest_digest=f"sha256:{'1' * 64}")


class Told(NamedTuple):
    """One event as a browser gets it."""

    event: str
    data: Any
    id: str


@asynccontextmanager
async def following(service: Service) -> AsyncIterator[None]:
    """The API's feed at work."""
    async with TaskGroup() as tasks:
        running = [tasks.create_task(service.context.feed.run()), tasks.create_task(service.mirror.run())]
        await service.context.feed.ready.wait()
        yield
        for task in running:
            task.cancel()


@asynccontextmanager
async def listening(service: Service, last_id: str = "") -> AsyncIterator[AsyncIterator[Told]]:
    """One client's events."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with asyncio.timeout(30), service.client.get("/api/v1/events", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")

        async def read() -> AsyncIterator[Told]:
            fields: dict[str, str] = {}
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "event" in fields:
                    yield Told(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                    fields = {}

        yield read()


async def _say(service: Service, message: Message, stream: str = STREAMS.images) -> None:
    await service.world.bus.publish(stream, Envelope(message=message, source="t", subject="s", actor="eva"))


async def _next(told: AsyncIterator[Told], kind: str) -> Told:
    async for one in told:
        if one.event == kind:
            return one
    raise AssertionError(f"no {kind} was told")


async def test_a_client_gets_a_snapshot_then_every_change(service: Service) -> None:
    """An entry of a stream has an id; a row that nobody recorded yet comes as a change."""
    async with following(service), listening(service) as told:
        snapshot = await _next(told, "snapshot")
        assert (snapshot.data["transfers"], snapshot.data["stats"]["images"]) == ([], 0)
        await _say(service, DELETED)
        event = await _next(told, "event")
        assert (event.data["type"], event.data["actor"]) == ("image.deleted.v1", "eva")
        assert event.id != snapshot.id
        request = DeploymentRequested(deployment_id="d1", range_id="r1", images=("web:1",))
        await _say(service, request, STREAMS.deployments)
        changed = await _next(told, "changed")
        assert (changed.data["kind"], changed.data["ids"]) == ("deployments", ["d1"])
        assert changed.data["rows"][0]["state"] == "requested"


async def test_progress_is_told_four_times_a_second_at_most_and_its_end_always(service: Service) -> None:
    """The first and the last at once; between them only the latest of what came."""
    async with following(service), listening(service) as told:
        await _next(told, "snapshot")
        for done in range(50):
            progress = TransferProgress(
                transfer_id="d1.0.1",
                reference="web:1",
                kind="pull",
                phase="done" if done == 49 else "downloading",
                range_id="r1",
                done_bytes=done,
                total_bytes=49,
            )
            await _say(service, progress, STREAMS.progress)
        seen: list[Told] = []
        while not seen or seen[-1].data["phase"] != "done":
            seen.append(await _next(told, "transfer"))
        assert seen[0].data["done_bytes"] == 0
        assert seen[-1].data["done_bytes"] == 49
        assert len(seen) <= 10


async def test_a_client_that_comes_back_gets_what_it_missed(service: Service) -> None:
    """Every entry once, in order, over several streams; and is told that its lists may be old."""
    async with following(service):
        async with listening(service) as told:
            await _next(told, "snapshot")
            await _say(service, DELETED)
            last = await _next(told, "event")
        for number in range(3):
            request = DeploymentRequested(deployment_id=f"d{number}", range_id="r1", images=("web:1",))
            await _say(service, request, STREAMS.deployments)
            await _say(service, DELETED)
        async with listening(service, last.id) as told:
            missed = [await _next(told, "event") for _ in range(6)]
            changed = await _next(told, "changed")
        assert sum(one.data["type"] == "image.deleted.v1" for one in missed) == 3
        assert [one.data["data"]["deployment_id"] for one in missed if "deployment_id" in one.data["data"]] == [
            "d0",
            "d1",
            "d2",
        ]
        assert changed.data["all"]
        async with listening(service, missed[3].id) as told:
            assert [(await _next(told, "event")).data["entry"] for _ in range(2)] == [
                one.data["entry"] for one in missed[4:]
            ]


@pytest.mark.parametrize("last_id", ["nonsense", "images=1-0", "images=9-9;deployments=x;dead=0-0"])
async def test_an_id_of_nobodys_is_a_reset(service: Service, last_id: str) -> None:
    """A snapshot follows."""
    async with following(service), listening(service, last_id) as told:
        assert (await anext(told)).event == "reset"
        assert (await anext(told)).event == "snapshot"


async def test_what_was_trimmed_since_is_a_reset(service: Service) -> None:
    """The stream begins behind what the client saw last."""
    async with following(service):
        await _say(service, DELETED)
        async with listening(service, "dead=0-0;deployments=0-0;images=0-1") as told:
            first = await anext(told)
            assert (first.event, first.data["reason"]) == ("reset", "events were trimmed since")


async def test_too_many_rows_are_told_in_one_word(service: Service) -> None:
    """The client asks for its list again."""
    async with following(service), listening(service) as told:
        await _next(told, "snapshot")
        service.context.feed.changed(Change(kind="images", ids=frozenset(map(str, range(101)))))
        changed = await _next(told, "changed")
        assert (changed.data["all"], changed.data["ids"]) == (True, [])


async def test_the_servers_end_is_told(service: Service) -> None:
    """And the answer is complete."""
    async with following(service), listening(service) as told:
        await _next(told, "snapshot")
        service.context.feed.broadcast.close()
        assert (await _next(told, "bye")).data == {"reason": "the server ends"}
        assert [one async for one in told] == []


async def test_silence_has_a_heartbeat(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies keep the connection, and the client knows that it stands."""
    monkeypatch.setattr(endpoint, "HEARTBEAT_SECONDS", 0.01)
    service.context.feed.ready.set()
    async with asyncio.timeout(30), service.client.get("/api/v1/events") as answer:
        while await answer.content.readline() != b": heartbeat\n":
            continue


async def test_the_ring_is_bounded() -> None:
    """Who is behind by more is told so; who keeps up gets every frame once."""
    ring = Broadcast(frames=3, bytes_limit=100)
    for number in range(5):
        ring.publish(b"%d" % number)
    with pytest.raises(Lagged):
        ring.take(0)
    assert ring.take(2) == (b"234", 5)
    assert ring.take(5) == (b"", 5)
    assert not await ring.wait(5, 0.01)
    ring.publish(b"x" * 200)
    with pytest.raises(Lagged):
        ring.take(4)
    ring.close()
    with pytest.raises(Closed):
        await ring.wait(6, 1)


def test_positions_are_of_the_same_streams() -> None:
    """What does not name exactly these, or names no entry, is none."""
    positions = Positions({"images": "5-1", "dead": "0-0"})
    assert Positions.decode(positions.encode(), NAMES) == positions
    assert positions.moved("images", "6-0").entries["images"] == "6-0"
    for text in (
        "",
        "images=5-1",
        "images=5-1;dead=0-0;more=1-1",
        "images=5;dead=0-0",
        "images=5-1;dead=0-0" + " " * 600,
    ):
        assert Positions.decode(text, NAMES) is None


def test_text_cannot_break_out_of_a_frame() -> None:
    """Line breaks are escaped."""
    assert frame("event", {"note": "a\n\nevent: x\r"}).count(b"\n") == 3
