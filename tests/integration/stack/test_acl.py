"""Redis's users on a real server: the gateway does all of its work, and can do nothing else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from deploy.container.acl import Passwords, users_file
from events.bus import BusRefused, Delivery, Outcome, Post, RecordWrite
from events.envelope import Envelope
from events.messages import AgentStarted, RangeLimited, TransferCancelled
from events.redis.bus import RedisBus
from events.redis.scripts import source
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from events.worker.observer import Counter, Silent
from events.worker.worker import Worker
from services.commands.range_claims import claim_range, release_range
from services.errors import RangeElsewhere
from services.queries.limited_ranges import limited_ranges
from services.range_gateway.reports import Reports
from tests.laboratory import Lab, RedisServer

STREAMS = Streams("cyroid")
PASSWORDS = Passwords(services="s", gateway="g", operator="o", admin="a", replica="r", sentinel="n")
HELPERS = (":timers", ":deferred:deployer", ":tries:deployer", ":progress:deployer")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
STARTED = AgentStarted(range_id="7", engine_id="e", engine_version="28.5.2", store="classic", platform="linux/amd64")


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of users, with those of a second installation under a key prefix of its own."""
    path = tmp_path_factory.mktemp("acl") / "users.acl"
    other = users_file("other", replace(PASSWORDS, services="t")).splitlines(keepends=True)
    path.write_text("".join([users_file("cyroid", PASSWORDS), *other[1:]]))
    return path


@pytest.fixture(scope="module")
def guarded(lab: Lab, users: Path) -> RedisServer:
    """A Redis with the stack's users."""
    return lab.redis("guarded", aclfile=str(users))


@pytest.fixture
def url_of(guarded: RedisServer) -> dict[str, str]:
    """The URL under which each user logs in."""
    words = {"operator": "o", "cyroid": "s", "admin": "a", "range-gateway": "g"}
    return {name: f"redis://{name}:{word}@127.0.0.1:{guarded.port}/0" for name, word in words.items()}


@pytest.fixture
async def gateway(url_of: dict[str, str]) -> AsyncIterator[redis.Redis]:
    """A connection as the range gateway."""
    client: redis.Redis = redis.Redis.from_url(url_of["range-gateway"])
    async with client:
        yield client


async def test_the_gateway_and_a_service_work_under_their_users(url_of: dict[str, str]) -> None:
    """Start, heartbeat, a command in the inbox, its answer in the outbox, acknowledged on both sides."""
    answered = asyncio.Event()
    heard = asyncio.Event()

    async def on_command(delivery: Delivery[TransferCancelled]) -> Outcome:
        answer = delivery.envelope.causes(STARTED, source="agent@7", subject="7")
        return Outcome(posts=(Post(STREAMS.outbox("7"), answer),))

    async def on_answer(delivery: Delivery[AgentStarted]) -> None:
        heard.set()
        if delivery.envelope.causation_id:
            answered.set()

    agent_side = Subscription(
        group="agent",
        streams=lambda: [STREAMS.inbox("7")],
        handlers=Handlers().on(TransferCancelled, on_command, key=None, give_up=None),
        dead_stream=STREAMS.range_dead("7"),
        progress_stream=STREAMS.range_progress("7"),
    )
    service_side = Subscription(
        group="deployer",
        streams=lambda: [STREAMS.outbox("7")],
        handlers=Handlers().on(AgentStarted, on_answer, key=None, give_up=None),
        dead_stream=STREAMS.dead,
    )
    async with (
        RedisBus.open(url_of["range-gateway"], streams=STREAMS) as there,
        RedisBus.open(url_of["cyroid"], streams=STREAMS) as here,
    ):
        # A service comes first: it loads the scripts.
        await here.publish(STREAMS.images, Envelope(message=STARTED, source="test", subject="7"))
        workers = [Worker(there, agent_side, name="agent"), Worker(here, service_side, name="deployer")]
        async with TaskGroup() as group, asyncio.timeout(30):
            running = [group.create_task(worker.run()) for worker in workers]
            await there.publish(STREAMS.outbox("7"), Envelope(message=STARTED, source="agent@7", subject="7"))
            await there.beat(STREAMS.alive("7"), b"{}", 15.0)
            await heard.wait()
            assert await here.beats([STREAMS.alive("7")]) == [b"{}"]
            assert await here.discover(STREAMS.outbox_pattern) == [STREAMS.outbox("7")]
            command = Envelope(message=TransferCancelled(transfer_id="t"), source="deployer", subject="7")
            await here.publish(STREAMS.inbox("7"), command)
            await answered.wait()
            for task in running:
                task.cancel()
        await there.trim(STREAMS.inbox("7"), 3600.0)


async def test_the_gateway_names_a_range_over_its_limits(url_of: dict[str, str]) -> None:
    """The record, its index and the event: all that it may write beside the keys of ranges."""
    async with RedisBus.open(url_of["range-gateway"], streams=STREAMS) as bus:
        reports = Reports(bus, STREAMS, source="range-gateway@h", clock=lambda: 100.0)
        reports.met("7", "rate", cut=True)
        await reports.write()
    async with RedisBus.open(url_of["cyroid"], streams=STREAMS) as bus:
        (found,) = await limited_ranges(bus, "cyroid", since=0.0)
        said = [entry.envelope async for entry in bus.tail([STREAMS.deployments], after="0", follow=False)]
    assert (found.range_id, found.cut_off) == ("7", 1)
    assert any(envelope and isinstance(envelope.message, RangeLimited) for envelope in said)


async def test_the_gateway_claims_a_range_for_its_host(url_of: dict[str, str]) -> None:
    """As `ranges add` does through it, which also lets it go when it fails; an id of another host is refused."""
    async with RedisBus.open(url_of["cyroid"], streams=STREAMS) as bus:
        await claim_range(bus, "cyroid", "taken", host="b", now=NOW)
    async with RedisBus.open(url_of["range-gateway"], streams=STREAMS) as bus:
        assert (await claim_range(bus, "cyroid", "mine", host="a", now=NOW)).host == "a"
        await release_range(bus, "cyroid", "mine")
        with pytest.raises(RangeElsewhere):
            await claim_range(bus, "cyroid", "taken", host="a", now=NOW)


FORBIDDEN = {
    "writing where images are announced": ("XADD", "cyroid:images", "*", "a", "b"),
    "reading what happens to images": ("XRANGE", "cyroid:images", "-", "+"),
    "reading deployments": ("XRANGE", "cyroid:deployments", "-", "+"),
    "removing deployments": ("DEL", "cyroid:deployments"),
    "a group on deployments": ("XGROUP", "CREATE", "cyroid:deployments", "g", "0"),
    "reading the offers of transfers": ("HMGET", "cyroid:offer:t", "value"),
    "writing who has what": ("HSET", "cyroid:holdings:7", "value", "x"),
    "listing keys": ("KEYS", "*"),
    "walking through keys": ("SCAN", "0"),
    "emptying Redis": ("FLUSHALL",),
    "changing its configuration": ("CONFIG", "SET", "maxmemory", "1"),
    "reading who the users are": ("ACL", "LIST"),
    "watching what others do": ("MONITOR",),
    "broadcasting": ("PUBLISH", "cyroid", "x"),
    "stopping Redis": ("SHUTDOWN", "NOSAVE"),
    "closing others' connections": ("CLIENT", "KILL", "TYPE", "normal"),
    "stopping others' commands": ("CLIENT", "PAUSE", "100000"),
    "copying its data away": ("REPLICAOF", "127.0.0.1", "1"),
}


@pytest.mark.parametrize("deed", FORBIDDEN)
async def test_the_gateway_can_do_nothing_else(deed: str, gateway: redis.Redis) -> None:
    """Each of these is refused, and Redis says that it is for lack of permission."""
    with pytest.raises(NoPermissionError):
        await gateway.execute_command(*FORBIDDEN[deed])  # type: ignore[no-untyped-call]


ENDLESS = {
    "posts of a commit": ("commit", "token", "1e15"),
    "fields of a post": ("commit", "token", "1", "cyroid:range:7:outbox", "", "1", "0", "0", "1e15"),
    "items of a commit": ("commit",),
    "beats": ("read", "beats", "1e15"),
    "records": ("read", "records", "1e15"),
    "streams": ("take", "agent", "owner", "1", "1"),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_a_script_does_not_count_further_than_it_was_told(
    what: str, url_of: dict[str, str], gateway: redis.Redis
) -> None:
    """More items announced than sent is an error at once; Redis answers others meanwhile."""
    name, *words = ENDLESS[what]
    digest = hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
    items = "1" if words and name in ("commit", "read") else "1e15"
    arguments = [*words, items] if name == "take" else [items, *words]
    async with RedisBus.open(url_of["cyroid"], streams=STREAMS) as service, asyncio.timeout(4):
        await service.publish(STREAMS.images, Envelope(message=STARTED, source="test", subject="7"))
        with pytest.raises(ResponseError, match="announced"):
            await gateway.execute_command("EVALSHA", digest, 1, "cyroid:range:7:inbox", *arguments)  # type: ignore[no-untyped-call]
        await service.publish(STREAMS.images, Envelope(message=STARTED, source="test", subject="7"))


#: What a range could leave behind with rights it once had, or a person by mistake, beside a good range 8.
SPOILT = {
    "outbox": ("SET", "cyroid:range:7:outbox", "x"),
    "outbox:deferred:deployer": ("SET", "cyroid:range:7:outbox:deferred:deployer", "x"),
    "outbox:timers": ("SET", "cyroid:range:7:outbox:timers", "x"),
    "outbox:timers member no JSON": ("ZADD", "cyroid:range:7:outbox:timers", "0", "no JSON"),
    "outbox:tries:deployer": ("SET", "cyroid:range:7:outbox:tries:deployer", "x"),
    "outbox:progress:deployer": ("SET", "cyroid:range:7:outbox:progress:deployer", "x"),
}


@pytest.mark.parametrize("name", SPOILT)
async def test_one_spoilt_range_stops_no_other(
    name: str, url_of: dict[str, str], guarded: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The deployer takes, fails, finishes and waits for what range 8 says, with a range 7 that cannot be read."""
    service: redis.Redis = redis.Redis.from_url(url_of["cyroid"])
    outboxes = [STREAMS.outbox("7"), STREAMS.outbox("8")]
    handled = asyncio.Event()
    skipped = asyncio.Event()

    class Counting(Silent):
        def count(self, group: str, counter: Counter, amount: int = 1) -> None:
            if counter == "spoilt":
                skipped.set()

    async def on_started(delivery: Delivery[AgentStarted]) -> None:
        if delivery.stream == outboxes[0]:
            raise RuntimeError("put aside, time and again")
        if delivery.attempt == 1:
            raise RuntimeError("put aside once, in one call with the other")
        handled.set()

    async with service, RedisBus.open(url_of["cyroid"], streams=STREAMS) as bus:
        await service.delete(*outboxes, *(f"{outboxes[0]}{tail}" for tail in HELPERS))
        subscription = Subscription(
            group="deployer",
            streams=lambda: [STREAMS.deployments, *outboxes],
            handlers=Handlers().on(AgentStarted, on_started, key=None, give_up=None),
            dead_stream=STREAMS.dead,
            backoff_seconds=0.05,
            attempts=100,
        )
        if name != "outbox":
            await bus.publish(outboxes[0], Envelope(message=STARTED, source="agent@7", subject="7"))
        await service.execute_command(*SPOILT[name])  # type: ignore[no-untyped-call]
        worker = Worker(bus, subscription, name="deployer", observer=Counting())
        async with TaskGroup() as group, asyncio.timeout(20):
            running = group.create_task(worker.run())
            await bus.publish(outboxes[1], Envelope(message=STARTED, source="agent@8", subject="8"))
            await handled.wait()
            # A second one comes while the worker waits for news of both.
            handled.clear()
            await bus.publish(outboxes[1], Envelope(message=STARTED, source="agent@8", subject="8"))
            await handled.wait()
            entries = [entry async for entry in bus.tail(outboxes, after="0", follow=False)]
            assert [one.stream for one in entries].count(outboxes[1]) == 2
            assert any(status.stream == outboxes[1] for status in await bus.groups(outboxes))
            if name != "outbox:progress:deployer":  # which is only cleaned up here
                await skipped.wait()
            running.cancel()
        await service.delete(*outboxes, *(f"{outboxes[0]}{tail}" for tail in HELPERS))
    if skipped.is_set():
        key = f"{outboxes[0].removesuffix('outbox')}{name.split(maxsplit=1)[0]}"
        assert any(key in record.getMessage() for record in caplog.records)


async def test_two_installations_share_a_redis(guarded: RedisServer, url_of: dict[str, str]) -> None:
    """Each with its own users: both work, and neither reaches the other's keys."""
    there = f"redis://other-services:t@127.0.0.1:{guarded.port}/0"
    event = Envelope(message=STARTED, source="test", subject="7")
    for url, mine, others in ((url_of["cyroid"], "cyroid", "other"), (there, "other", "cyroid")):
        async with RedisBus.open(url, streams=Streams(mine)) as bus:
            assert await bus.preflight() == []
            await bus.publish(f"{mine}:images", event)
            with pytest.raises(BusRefused):
                await bus.load(f"{others}:known:7")


async def test_the_operator_reads_and_changes_nothing(url_of: dict[str, str]) -> None:
    """The user of `redis-cli` sees the log book and cannot write in it."""
    client: redis.Redis = redis.Redis.from_url(url_of["operator"])
    async with client:
        assert isinstance(await client.xrange("cyroid:range:7:outbox"), list)
        assert "redis_version" in await client.info()
        for words in (("XADD", "cyroid:images", "*", "a", "b"), ("DEL", "cyroid:images"), ("FLUSHALL",)):
            with pytest.raises(NoPermissionError):
                await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def test_a_restart_brings_everything_back(guarded: RedisServer, url_of: dict[str, str]) -> None:
    """What scripts wrote is a transaction in the append-only file; it is replayed whoever may do what."""
    event = Envelope(message=STARTED, source="test", subject="7")
    async with RedisBus.open(url_of["cyroid"], streams=STREAMS) as bus:
        await bus.publish("cyroid:kept", event)
        await bus.commit(Outcome(records=(RecordWrite("cyroid:kept:record", b"v", None),)))
    guarded.stop()
    guarded.start()
    async with RedisBus.open(url_of["cyroid"], streams=STREAMS) as bus:
        kept = [tailed.envelope async for tailed in bus.tail(["cyroid:kept"], after="0", follow=False)]
        assert [envelope.id for envelope in kept if envelope] == [event.id]
        record = await bus.load("cyroid:kept:record")
        assert record is not None
        assert record.value == b"v"


async def test_nobody_is_anonymous(guarded: RedisServer) -> None:
    """Without a password Redis answers nothing."""
    client: redis.Redis = redis.Redis.from_url(guarded.url)
    async with client:
        with pytest.raises(AuthenticationError):
            await client.xlen("cyroid:images")
