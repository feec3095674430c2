"""`services.range_gateway.role`: who is let in, what is refused, and that one range's trouble is its own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from events.bus import BusDenied, BusError, BusRefused, BusUnavailable, Outcome, Post
from events.envelope import Envelope
from events.gateway.protocol import Beat, Call, Hello, Reply, Welcome
from events.lease import Bus, Holder, SingleFlightLock
from events.memory.bus import MemoryBus
from events.messages import (
    AgentStarted,
    DeploymentCancelRequested,
    DeploymentRequested,
    Failure,
    ImageFailed,
    ImagePushed,
    ImagesChanged,
    Message,
    PresentImage,
    TransferProgress,
)
from services.core.ranges.limits import RangeLimits
from services.runtime.open_telemetry import SpanMaker
from services.runtime.tracing import TracedBus
from tests.unit.services.range_gateway.site import (
    IMAGE_ID,
    RANGE,
    SECRET,
    RawConnection,
    Site,
    open_site,
    progress,
    ready,
    until,
)

AGENT = Holder("agent", "o1", 30.0)
#: Small, so that a flood meets them at once and the range is let in again soon.
TIGHT = RangeLimits(
    requests_per_second=20.0, requests_burst=20.0, patience_seconds=0.3, slow_seconds=0.1, closed_seconds=0.5
)


Opener = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    """Opens a site over a bus in memory. A suite that has another one runs these tests over its own bus."""
    return partial(open_site, tmp_path)


@pytest.fixture
async def site(opener: Opener) -> AsyncIterator[Site]:
    async with opener() as opened:
        yield opened


async def is_in(site: Site) -> bool:
    """Whether the range is let in (again)."""
    async with site.agent() as bus:
        try:
            await bus.beat(site.streams.alive(RANGE), b"x", 5.0)
        except BusUnavailable:
            return False
    return True


async def flood(raw: RawConnection) -> None:
    """Ask without a pause until the connection ends."""
    for number in range(1, 100_000):
        await raw.send(msgspec.msgpack.encode(Call(number, Beat(value=b"x", expires_seconds=5.0))))
        await raw.answer()


async def test_a_transfer_goes_through(site: Site) -> None:
    """Take, lock, renew with progress, finish with an answer: what the deployer asks and the agent says arrives."""
    async with site.agent() as bus:
        await site.ask()
        (lease,) = (await bus.take(AGENT, [site.inbox], 4)).leases
        lock = SingleFlightLock(site.inbox, IMAGE_ID)
        assert await bus.acquire(lease, lock)
        lease = lease.acquired(lock)
        assert await bus.renew([(lease, progress(site.streams))]) == []
        assert await bus.finish(lease, Outcome(posts=(Post(site.outbox, ready()),)))
    assert [type(one).__name__ for one in await site.said(site.outbox)] == ["ImageReady"]
    (told,) = await site.said(site.streams.range_progress(RANGE))
    assert isinstance(told, TransferProgress)


async def test_a_wrong_secret_is_denied(site: Site) -> None:
    """Neither a guessed secret nor another range's name gets in; an unknown range is answered alike."""
    for name, secret in ((RANGE, "wrong"), ("r3", SECRET)):
        async with site.agent(name, secret) as bus:
            with pytest.raises(BusDenied, match="not the secret"):
                await bus.beat(site.streams.alive(name), b"x", 5.0)


@pytest.mark.parametrize("range_id", ["../r1", "r1/", ".", "", "a" * 200, "r1\0", "r1\n"])
async def test_a_name_that_is_no_range_is_not_looked_up(range_id: str, site: Site) -> None:
    """The name is part of a file's path: only what can be a range id is read."""
    raw = await RawConnection.open(site, hello=False)
    await raw.send(msgspec.msgpack.encode({"ask": "hello", "range_id": range_id, "secret": SECRET}))
    assert await raw.ended()


@pytest.mark.parametrize(
    "message",
    [
        DeploymentRequested(deployment_id="d", range_id="r2", images=("web:1",)),
        DeploymentCancelRequested(deployment_id="d"),
        ImagePushed(
            reference="web:1", repository="web", tag="1", manifest_digest=IMAGE_ID, image_id=IMAGE_ID, sent_bytes=1
        ),
        ImagesChanged(range_id="r2"),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_a_range_says_only_what_is_its_own(message: Message, site: Site) -> None:
    """Commands, other services' events and lists of other ranges are refused, and nothing is stored."""
    async with site.agent() as bus:
        with pytest.raises(BusRefused):
            await bus.publish(site.outbox, Envelope(message=message, source=f"agent@{RANGE}", subject="x"))
    assert await site.said(site.outbox) == []


async def test_a_range_speaks_under_its_own_name(site: Site) -> None:
    """The source of an event is half of what makes it itself, so it cannot be chosen."""
    async with site.agent() as bus:
        with pytest.raises(BusRefused, match="agent@r1"):
            await bus.publish(site.outbox, ready(source="agent@r2"))


async def test_an_entry_over_64_kib_is_refused_and_a_list_of_images_is_not(site: Site) -> None:
    """The size is checked before anything is stored; only lists of images may be larger."""
    failure = Failure(code="x", message="m" * 70_000)
    failed = Envelope(message=ImageFailed(transfer_id="t", error=failure), source=f"agent@{RANGE}", subject="x")
    images = tuple(PresentImage(references=(f"image:{n}",), diff_ids=(IMAGE_ID,) * 9) for n in range(300))
    listed = Envelope(message=ImagesChanged(range_id=RANGE, images=images), source=f"agent@{RANGE}", subject=RANGE)
    async with site.agent() as bus:
        with pytest.raises(BusRefused):
            await bus.publish(site.outbox, failed)
        await bus.publish(site.outbox, listed)
    assert [type(one).__name__ for one in await site.said(site.outbox)] == ["ImagesChanged"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        msgspec.msgpack.encode([1, {"ask": "take"}]),
        msgspec.msgpack.encode([1, {"ask": "flushall"}]),
        msgspec.msgpack.encode([-1, {"ask": "last_beat"}]),
        msgspec.msgpack.encode([1, {"ask": "take", "holder": ["services", "o", 3.0], "count": 1}]),
        msgspec.msgpack.encode([1, {"ask": "take", "holder": ["agent", "o " * 900, 3.0], "count": 1}]),
        msgspec.msgpack.encode([1, {"ask": "take", "holder": ["agent", "o", float("nan")], "count": 1}]),
        msgspec.msgpack.encode([1, {"ask": "take", "holder": ["agent", "o", 3.0], "count": 10**9}]),
        b"\x91" * 5000,
    ],
)
async def test_what_is_no_request_ends_the_connection(payload: bytes, site: Site) -> None:
    """Bad bytes, unknown requests, other groups, numbers out of bounds, deep nesting: the connection ends, no more."""
    raw = await RawConnection.open(site)
    await raw.send(payload)
    assert await raw.ended()
    async with site.agent() as bus:
        await bus.beat(site.streams.alive(RANGE), b"x", 5.0)


@pytest.mark.parametrize("length", [LIMIT := 1 << 20, 0xFFFFFFFF])
async def test_a_frame_that_is_announced_too_large_is_not_read(length: int, site: Site) -> None:
    """The length is enough to know: no byte of it is waited for, and none is stored."""
    raw = await RawConnection.open(site)
    raw.writer.write(struct.pack(">I", length) + b"x" * 1000)
    assert await raw.ended()


async def test_whoever_says_no_hello_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that sends one byte, or none, has a few seconds; an address has few of those."""
    monkeypatch.setattr("services.range_gateway.role.HELLO_SECONDS", 0.2)
    slow = [await RawConnection.open(site, hello=False) for _ in range(40)]
    for raw in slow[::2]:
        raw.writer.write(b"\0")
    assert all([await raw.ended() for raw in slow])
    async with site.agent() as bus:
        await bus.beat(site.streams.alive(RANGE), b"x", 5.0)


async def test_a_flood_is_slowed_then_cut_off_and_named(opener: Opener) -> None:
    """Another range notices nothing; the record and the event name the one that floods; it may come back by itself."""
    async with opener(limits=TIGHT) as site, site.agent("r2") as honest:
        raw = await RawConnection.open(site)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await flood(raw)
        await honest.beat(site.streams.alive("r2"), b"x", 5.0)
        again = await RawConnection.open(site, hello=False)
        await again.send(msgspec.msgpack.encode(Hello(RANGE, SECRET)))
        welcome = await again.answer()
        assert isinstance(welcome, Welcome)
        assert welcome.error == "away"

        async def cut_off() -> bool:
            return any(one.cut_off for one in await site.limited())

        await until(cut_off)
        assert {one.range_id for one in await site.limited()} == {RANGE}
        await until(lambda: is_in(site))


async def test_messages_over_the_budget_wait(opener: Opener) -> None:
    """An agent that publishes more than it may is told to wait; nothing more of it is stored, and a reader is told."""
    limits = RangeLimits(messages_burst=5.0, messages_per_hour=1.0)
    async with opener(limits=limits) as site, site.agent() as bus:
        for number in range(5):
            await bus.publish(site.outbox, ready(transfer_id=f"t{number}"))
        with pytest.raises(BusUnavailable, match="messages"):
            await bus.publish(site.outbox, ready(transfer_id="t6"))
        assert len(await site.said(site.outbox)) == 5


async def test_progress_over_the_budget_is_dropped_and_the_lease_stays(opener: Opener) -> None:
    """Progress is lossy: telling too much of it costs neither the lease nor the outcome."""
    limits = RangeLimits(progress_burst=2.0, progress_per_second=0.001)
    async with opener(limits=limits) as site, site.agent() as bus:
        await site.ask()
        (lease,) = (await bus.take(AGENT, [site.inbox], 1)).leases
        for number in range(5):
            assert await bus.renew([(lease, progress(site.streams, number))]) == []
        assert await bus.finish(lease, Outcome(posts=(Post(site.outbox, ready()),)))
        assert len(await site.said(site.streams.range_progress(RANGE))) == 2


async def test_a_range_has_a_few_connections_and_the_newest_stay(site: Site) -> None:
    """An agent that lost its way comes back although its former connections still stand."""
    raws = [await RawConnection.open(site) for _ in range(7)]
    assert all([await raw.ended() for raw in raws[:3]])
    await raws[-1].send(msgspec.msgpack.encode(Call(1, Beat(value=b"x", expires_seconds=5.0))))
    assert isinstance(await raws[-1].answer(), Reply)


async def test_whoever_does_not_read_answers_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers pile up in the range's own socket, then its connection ends."""
    monkeypatch.setattr("services.range_gateway.session.FRAME_SECONDS", 0.3)
    note = "n" * 900_000
    for number in range(40):
        request = DeploymentCancelRequested(deployment_id=f"d{number}", reason=note)
        await site.bus.publish(site.inbox, Envelope(message=request, source="deployer@h", subject="x"))
    raw = await RawConnection.open(site)
    for number in range(1, 9):
        take = {"ask": "take", "holder": ["agent", "o", 30.0], "count": 16}
        await raw.send(msgspec.msgpack.encode([number, take]))

    async def cut_off() -> bool:
        try:
            await raw.send(msgspec.msgpack.encode([99, {"ask": "last_beat"}]))
        except ConnectionError:
            return True
        return False

    await until(cut_off)
    async with site.agent() as bus:
        await bus.beat(site.streams.alive(RANGE), b"x", 5.0)


async def test_new_entries_are_told_at_once(site: Site) -> None:
    """An agent that waits is woken by the gateway, not by its own next look."""
    async with site.agent() as bus:
        assert not (await bus.take(AGENT, [site.inbox], 1)).leases
        waiting = asyncio.create_task(bus.wait(AGENT, [site.inbox], 60.0))
        await asyncio.sleep(0)
        await site.ask()

        async def found() -> bool:
            return bool((await bus.take(AGENT, [site.inbox], 1)).leases)

        async with asyncio.timeout(10):
            await waiting
        await until(found)


async def test_a_removed_range_is_out(site: Site) -> None:
    """Secrets are read at each connection: who is forgotten needs no restart to be kept out."""
    (site.secrets / RANGE).unlink()
    async with site.agent() as bus:
        with pytest.raises(BusError):
            await bus.beat(site.streams.alive(RANGE), b"x", 5.0)


async def test_a_range_is_let_in_on_one_host_and_does_not_say_which(opener: Opener) -> None:
    """Its gateway puts its own host into what the agent says; another host's gateway lets no range of that id in."""
    started = AgentStarted(
        range_id=RANGE, engine_id="e", engine_version="28", store="classic", platform="linux/amd64", host="forged"
    )
    async with opener(host="a") as here, here.agent() as bus:
        outbox = here.streams.outbox(RANGE)
        await bus.publish(outbox, Envelope(message=started, source=f"agent@{RANGE}", subject=RANGE))
        assert await here.said(outbox) == [msgspec.structs.replace(started, host="a")]
        async with opener(bus=here.bus, host="b") as there, there.agent() as other:
            with pytest.raises(BusDenied, match="on host a"):
                await other.beat(there.streams.alive(RANGE), b"x", 5.0)


async def test_an_agent_without_spans_stays_in_the_trace(tmp_path: Path) -> None:
    """It hands on the context of what it was asked; the gateway's span is the child of that, and goes out with it."""
    exporter = InMemorySpanExporter()
    maker = SpanMaker(process="gateway", exporter=exporter)
    asked = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with open_site(tmp_path, bus=cast(Bus, TracedBus(MemoryBus(), maker))) as site, site.agent() as agent:
        await agent.publish(site.outbox, replace(ready(), traceparent=asked))
        (entry,) = [one async for one in site.bus.tail([site.outbox], after="0", follow=False)]
    await maker.close()
    span = next(one for one in exporter.get_finished_spans() if one.name == "send image.ready")
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == tuple(asked.split("-")[1:3])
    assert entry.envelope is not None
    assert entry.envelope.traceparent == f"00-{asked.split('-')[1]}-{span.context.span_id:016x}-01"
