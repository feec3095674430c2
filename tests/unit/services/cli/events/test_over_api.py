"""`events` by the HTTP API: the log, live events, groups and dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from click.testing import CliRunner, Result

from events.bus import NOTHING
from events.envelope import Envelope
from events.lease import DeadLetterReason, Holder
from events.messages import PushRequested, TransferProgress
from services.cli import main
from services.cli.events import over_api
from services.cli.remote import ServerSentEvent
from services.errors import Unavailable
from tests.unit.services.api.site import Service, open_service
from tests.unit.services.twins import STREAMS


async def _publish(service: Service, reference: str) -> None:
    envelope = Envelope(message=PushRequested(reference=reference), source="api", subject=reference)
    await service.world.bus.publish(STREAMS.images, envelope)
    await service.look()


async def _bury(service: Service) -> None:
    """A dead letter of the oldest event."""
    bus = service.world.bus
    (lease,) = (await bus.take(Holder("pusher", "w"), [STREAMS.images], 1)).leases
    await bus.dead_letter(
        lease, DeadLetterReason(STREAMS.dead, "not_found", "no image", "2026-01-01T00:00:00Z"), NOTHING
    )
    await service.look()


async def _run(service: Service, *words: str) -> Result:
    url = str(service.client.make_url("/"))
    return await asyncio.to_thread(CliRunner().invoke, main, ["events", *words, "--api", url], catch_exceptions=False)


async def test_events_are_told_from_elsewhere() -> None:
    """The latest in their order, one with all that its request caused, groups; an unknown one is an error."""
    async with open_service() as service:
        await _publish(service, "web:1")
        await _bury(service)
        await _publish(service, "web:2")
        lines = (await _run(service, "tail", "-n", "2", "--no-follow")).stdout.splitlines()
        assert ("pusher gave up" in lines[0], "web:2" in lines[1], len(lines)) == (True, True, 2)
        told = [json.loads(line) for line in (await _run(service, "tail", "--no-follow", "--json")).stdout.splitlines()]
        assert [one["type"] for one in told] == ["image.push_requested.v1", "dead_letter", "image.push_requested.v1"]
        shown = json.loads((await _run(service, "show", told[0]["id"], "--json")).stdout)["items"]
        assert {one["type"] for one in shown} == {"image.push_requested.v1", "dead_letter"}
        unknown = await _run(service, "show", "nothing")
        assert (unknown.exit_code, "none of the latest events" in unknown.stderr) == (2, True)
        assert (await _run(service, "groups")).exit_code == 0
        refused = await _run(service, "tail", "--range", "range-1")
        assert (refused.exit_code, "without --api" in refused.output) == (2, True)


async def test_dead_letters_are_redriven_and_dropped_from_elsewhere() -> None:
    """Nothing happens without --yes; an id that is not there is an error."""
    async with open_service() as service:
        await _publish(service, "web:1")
        await _bury(service)
        (letter,) = json.loads((await _run(service, "dead", "list", "--json")).stdout)["items"]
        assert "no image" in (await _run(service, "dead", "show", letter["letter"])).stdout
        dry = json.loads((await _run(service, "dead", "redrive", letter["letter"], "--json")).stdout)
        assert dry == {"matching": 1, "done": 0, "dry_run": True}
        done = json.loads((await _run(service, "dead", "redrive", "--all", "--yes", "--json")).stdout)
        assert done == {"matching": 1, "done": 1, "dry_run": False}
        gone = await _run(service, "dead", "drop", letter["letter"], "--yes")
        assert (gone.exit_code, "not all of these" in gone.stderr) == (2, True)
        assert (await _run(service, "dead", "drop")).exit_code == 2


async def _until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not said():  # noqa: ASYNC110 - what is printed has no event
            await asyncio.sleep(0.01)


async def test_a_tail_goes_on_where_the_log_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """What was in the log is not said twice; progress is told where it is asked for."""
    heard: list[str] = []

    def has(text: str) -> bool:
        heard.append(capsys.readouterr().out)
        return text in "".join(heard)

    async with open_service() as service:
        service.context.feed.ready.set()
        await _publish(service, "web:1")
        url = str(service.client.make_url("/"))
        work = over_api.tail(url, 10, follow=True, with_progress=True, as_json=False)
        following = asyncio.create_task(work)
        await _until(lambda: has("web:1"))
        await _publish(service, "web:2")
        progress = TransferProgress(transfer_id="t", reference="web:2", kind="push", phase="sending", done_bytes=5)
        await service.world.bus.publish(STREAMS.progress, Envelope(message=progress, source="p", subject="web:2"))
        following_progress = asyncio.create_task(service.context.feed.run())
        await _until(lambda: has("sending 5 B"))
        for task in (following, following_progress):
            task.cancel()
        await asyncio.gather(following, following_progress, return_exceptions=True)
        assert "".join(heard).count("web:1") == 1


async def test_a_connection_that_ends_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the id of the last event; one that never came about is an error."""
    asked: list[str] = []

    async def listen(url: str, last_id: str = "") -> AsyncIterator[ServerSentEvent]:
        asked.append(last_id)
        if len(asked) == 2:
            raise Unavailable("away")
        yield ServerSentEvent("bye", b"{}", f"id-{len(asked)}")

    monkeypatch.setattr(over_api, "listen", listen)
    monkeypatch.setattr(over_api, "AGAIN_SECONDS", 0.0)
    async with aclosing(over_api._live("http://x")) as events:
        found = [(await anext(events)).ident for _ in range(2)]
    assert (found, asked) == (["id-1", "id-3"], ["", "id-1", "id-1"])
    asked[:] = ["one"]
    with pytest.raises(Unavailable):
        await anext(over_api._live("http://x"))
