"""Redis's users on a real server: an agent does all of its work, and can do nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.exceptions import AuthenticationError, NoPermissionError

from deploy.lab import Lab, RedisServer
from deploy.stack.acl import Passwords, range_user, set_user, users_file
from events.bus import Delivery, Outcome, Post, RecordWrite, Subscription
from events.envelope import Envelope
from events.messages import AgentStarted, TransferCancelled
from events.redis_bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker

STREAMS = Streams("cyroid")
PASSWORDS = Passwords(services="s", operator="o", admin="a", ranges={"7": "seven", "8": "eight"})
STARTED = AgentStarted(range_id="7", engine_id="e", engine_version="28.5.2", store="classic", platform="linux/amd64")


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of users."""
    path = tmp_path_factory.mktemp("acl") / "users.acl"
    path.write_text(users_file("cyroid", PASSWORDS))
    return path


@pytest.fixture(scope="module")
def guarded(lab: Lab, users: Path) -> RedisServer:
    """A Redis with the stack's users."""
    return lab.redis("guarded", aclfile=str(users))


@pytest.fixture
def url_of(guarded: RedisServer) -> dict[str, str]:
    """The URL under which each user logs in."""
    words = {"operator": "o", "cyroid": "s", "admin": "a", range_user("7"): "seven", range_user("8"): "eight"}
    return {name: f"redis://{name}:{word}@127.0.0.1:{guarded.port}/0" for name, word in words.items()}


@pytest.fixture
async def agent(url_of: dict[str, str]) -> AsyncIterator[redis.Redis]:
    """A connection as the agent of range 7."""
    client: redis.Redis = redis.Redis.from_url(url_of["range-7"])
    async with client:
        yield client


async def test_an_agent_and_a_service_work_under_their_users(url_of: dict[str, str]) -> None:
    """Start, heartbeat, a command in the inbox, its answer in the outbox, acknowledged on both sides."""
    answered = asyncio.Event()
    heard = asyncio.Event()

    async def on_command(delivery: Delivery) -> Outcome:
        answer = delivery.envelope.causes(STARTED, source="agent@7", subject="7")
        return Outcome(posts=(Post(STREAMS.outbox("7"), answer),))

    async def on_answer(delivery: Delivery) -> None:
        heard.set()
        if delivery.envelope.causation_id:
            answered.set()

    agent_side = Subscription(
        group="agent",
        streams=lambda: [STREAMS.inbox("7")],
        handlers={TransferCancelled: on_command},
        dead_stream=STREAMS.range_dead("7"),
        progress_stream=STREAMS.range_progress("7"),
    )
    service_side = Subscription(
        group="deployer",
        streams=lambda: [STREAMS.outbox("7")],
        handlers={AgentStarted: on_answer},
        dead_stream=STREAMS.dead,
    )
    async with (
        RedisBus.open(url_of["range-7"], streams=STREAMS) as there,
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


FORBIDDEN = {
    "writing where images are announced": ("XADD", "cyroid:images", "*", "a", "b"),
    "asking for a deployment": ("XADD", "cyroid:deployments", "*", "a", "b"),
    "reading what happens to images": ("XRANGE", "cyroid:images", "-", "+"),
    "reading another range's inbox": ("XREAD", "STREAMS", "cyroid:range:8:inbox", "0"),
    "answering for another range": ("XADD", "cyroid:range:8:outbox", "*", "a", "b"),
    "beating for another range": ("SET", "cyroid:range:8:alive", "x"),
    "reading the offers of other transfers": ("HMGET", "cyroid:offer:t", "value"),
    "a range whose name begins like ours": ("XADD", "cyroid:range:77:outbox", "*", "a", "b"),
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
    "a script of its own": ("EVAL", "return 1", "0"),
    "keeping a script of its own": ("SCRIPT", "LOAD", "while true do end"),
    "stopping a script": ("SCRIPT", "KILL"),
}


@pytest.mark.parametrize("deed", FORBIDDEN)
async def test_an_agent_can_do_nothing_else(deed: str, agent: redis.Redis) -> None:
    """Each of these is refused, and Redis says that it is for lack of permission."""
    with pytest.raises(NoPermissionError):
        await agent.execute_command(*FORBIDDEN[deed])  # type: ignore[no-untyped-call]


async def test_a_script_of_the_bus_cannot_be_turned_against_others(url_of: dict[str, str], agent: redis.Redis) -> None:
    """What runs inside a script runs with the caller's rights: another range's stream stays closed."""
    async with (
        RedisBus.open(url_of["cyroid"], streams=STREAMS) as service,
        RedisBus.open(url_of["range-7"], streams=STREAMS) as bus,
    ):
        await service.publish(STREAMS.images, Envelope(message=STARTED, source="test", subject="7"))
        with pytest.raises(Exception, match=r"(?i)perm|acl|refused"):
            await bus.publish(STREAMS.outbox("8"), Envelope(message=STARTED, source="agent@8", subject="8"))
    assert await agent.execute_command("XLEN", "cyroid:range:7:outbox") >= 0  # type: ignore[no-untyped-call]


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


async def test_a_new_range_is_let_in_without_a_restart(
    guarded: RedisServer, url_of: dict[str, str], agent: redis.Redis
) -> None:
    """`admin` adds a user as the list has it; nobody's connection breaks, and `admin` sees no data."""
    before = await agent.client_id()
    line = users_file("cyroid", replace(PASSWORDS, ranges={"9": "nine"})).splitlines()[-1]
    admin: redis.Redis = redis.Redis.from_url(url_of["admin"])
    newcomer: redis.Redis = redis.Redis.from_url(f"redis://range-9:nine@127.0.0.1:{guarded.port}/0")
    async with admin, newcomer:
        with pytest.raises(AuthenticationError):
            await newcomer.ping()
        assert await admin.execute_command(*set_user(line))  # type: ignore[no-untyped-call]
        assert await newcomer.ping()
        with pytest.raises(NoPermissionError):
            await admin.xlen("cyroid:images")
    assert await agent.client_id() == before
