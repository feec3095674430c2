"""A Redis that fails over, with the stack's users: a master, two replicas and three sentinels, real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from bench.faults.workload import insist
from deploy.container.acl import Passwords, users_file
from deploy.container.redis_users import Account, find_nodes, main, set_users
from deploy.machine.polling import poll
from events.bus import BusError, BusUnavailable
from events.envelope import Envelope
from events.messages import DeploymentEnded, DeploymentRequested, DeploymentSucceeded, PushRequested
from events.redis.bus import RedisBus
from events.redis.client import Commands, connect
from events.redis.replication import Replication
from events.redis.sentinel import Sentinels
from events.redis.urls import login_of
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layers import MemoryLayers
from services.adapters.memory_registry import MemoryRegistry
from services.adapters.openers import Adapters
from services.commands.range_claims import claim_range
from services.core.ranges.ranges import RangeKeys
from services.doctor.findings import Wrong
from services.doctor.replication import check_replication
from services.range_gateway.secrets import digest
from services.runtime.shutdown import Stop
from services.serving import run
from services.settings import Settings
from tests.laboratory import SERVICE, Lab, RedisServer, SentinelServer, free_port, redis_cli
from tests.simulation import eventually

pytestmark = pytest.mark.real

PASSWORDS = Passwords(services="s", gateway="g", operator="o", admin="a", replica="r", sentinel="n")
STREAMS = Streams("cyroid")
REGISTRY = "registry:5000"


@dataclass(frozen=True, slots=True)
class Group:
    """Servers that stand in for one another, and the sentinels that watch them."""

    nodes: Sequence[RedisServer]
    sentinels: Sequence[SentinelServer]

    def url(self, user: str, password: str) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{user}:{password}@{hosts}/{SERVICE}/0"

    def settings(self, user: str = "cyroid", password: str = "s", **more: object) -> Settings:
        url = self.url(user, password)
        return msgspec.structs.replace(Settings(redis_url=url, confirm_replicas=1, drain_seconds=0.0), **more)

    def master(self) -> RedisServer:
        """Which one the sentinels say it is."""
        said = self.sentinels[0].ask("sentinel", "get-master-addr-by-name", SERVICE).split()
        return next(one for one in self.nodes if str(one.port) in said)


@pytest.fixture(scope="module")
def group(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Each server has its own list of users, since these do not replicate."""
    folder = tmp_path_factory.mktemp("users")
    nodes: list[RedisServer] = []
    for number in range(3):
        users = folder / f"{number}.acl"
        users.write_text(users_file("cyroid", PASSWORDS))
        follows = {"replicaof": f"127.0.0.1 {nodes[0].port}"} if nodes else {}
        login = {"aclfile": str(users), "masteruser": "replica", "masterauth": "r"}
        nodes.append(lab.redis(f"failover-{number}", repl_diskless_sync_delay="0", **login, **follows))
    assert poll(lambda: "connected_slaves:2" in _info(nodes[0]), seconds=60)
    sentinels = [
        SentinelServer(
            f"sentinel-{number}",
            lab.place(f"sentinel-{number}"),
            lab.mark,
            nodes[0],
            quorum=2,
            account=("sentinel", "n"),
        )
        for number in range(3)
    ]
    for one in sentinels:
        lab.start(one)
    assert poll(lambda: all(_knows_all(one) for one in sentinels), seconds=60)
    yield Group(nodes, sentinels)
    for server in (*sentinels, *nodes):
        server.stop()


def _info(node: RedisServer) -> str:
    return redis_cli(node.port, "info", "replication", account=("operator", "o"))


def _knows_all(sentinel: SentinelServer) -> bool:
    fields = dict(zip(*[iter(sentinel.ask("sentinel", "master", SERVICE).splitlines())] * 2, strict=False))
    return (fields.get("num-slaves"), fields.get("num-other-sentinels")) == ("2", "2")


async def _until(check: Callable[[], bool]) -> None:
    """Wait for what may ask a server."""
    await eventually(lambda: asyncio.to_thread(check), within_seconds=60)


def _envelope(number: int) -> Envelope:
    return Envelope(message=PushRequested(reference=f"docker.io/library/n{number}:1"), source="test", subject="n")


async def test_a_demoted_master_is_left_and_a_replica_without_our_user_is_named(group: Group, tmp_path: Path) -> None:
    """A read that waits goes on at the new master; users are set where they are missing; one sentinel may be away."""
    heard: list[str] = []
    settings = group.settings()
    group.sentinels[0].pause()  # asked first, and answers nothing
    try:
        async with RedisBus.open(settings.redis_url, timeout_seconds=4.0, confirm_replicas=1) as bus:

            async def listen() -> None:
                places = {STREAMS.images: "0"}
                while True:
                    with suppress(BusUnavailable):
                        async for entry in bus.tail([STREAMS.images], after=dict(places)):
                            places[entry.stream] = entry.entry_id
                            heard.append(entry.envelope.id if entry.envelope else "?")
                    await asyncio.sleep(0.05)

            listening = asyncio.create_task(listen())
            first, second = _envelope(1), _envelope(2)
            await insist(bus, STREAMS.images, [first])
            await _until(lambda: first.id in heard)
            group.sentinels[0].resume()
            before = group.master()
            asked = await asyncio.to_thread(group.sentinels[1].ask, "sentinel", "failover", SERVICE)
            assert asked == "OK", asked
            await _until(lambda: group.master() is not before and "role:slave" in _info(before))
            await insist(bus, STREAMS.images, [second])
            await _until(lambda: second.id in heard)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await _users_are_set_everywhere(group, bus, settings, tmp_path)
            await _a_replica_is_no_master(group, settings)
            await _what_no_replica_has_is_not_acknowledged(group, bus)
    finally:
        group.sentinels[0].resume()


async def _users_are_set_everywhere(group: Group, bus: RedisBus, settings: Settings, folder: Path) -> None:
    async def seen() -> Replication | None:
        return await bus.replication(login_of(settings.redis_url))

    async def all_follow() -> bool:
        found = await seen()
        return found is not None and [one.online for one in found.replicas] == [True, True]

    await eventually(all_follow, within_seconds=60)
    found = await seen()
    told = check_replication(found, redis_url=settings.redis_url, confirm_replicas=1)
    assert "a master with 2 replicas" in told
    replica = next(one for one in group.nodes if one is not group.master())
    assert redis_cli(replica.port, "acl", "deluser", "cyroid", account=("admin", "a")) == "1"
    with pytest.raises(Wrong, match=rf"127\.0\.0\.1:{replica.port} would let nobody in"):
        check_replication(await seen(), redis_url=settings.redis_url, confirm_replicas=1)

    (folder / "redis").mkdir()
    (folder / "redis/users.acl").write_text(users_file("cyroid", PASSWORDS))
    for name, text in (("services/redis_url", settings.redis_url), ("admin/redis_password", "a")):
        path = folder / "secrets" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{text}\n")
    assert await asyncio.to_thread(main, [str(folder)]) == 0
    check_replication(await seen(), redis_url=settings.redis_url, confirm_replicas=1)
    everywhere = {("127.0.0.1", node.port) for node in group.nodes}
    assert set(find_nodes(settings.redis_url, Account("admin", "a"))) == everywhere
    assert set(find_nodes(f"redis://127.0.0.1:{group.master().port}/0", Account("admin", "a"))) <= everywhere
    wrong = set_users([("127.0.0.1", replica.port)], [], Account("admin", "wrong"))
    assert "WRONGPASS" in next(iter(wrong.values())) or "invalid" in next(iter(wrong.values()))


async def _a_replica_is_no_master(group: Group, settings: Settings) -> None:
    """Where a sentinel still names it, it is not used: reads that wait there would never be noticed."""
    replica = next(one for one in group.nodes if one is not group.master())

    async def stale(_: Sentinels, __: str) -> tuple[str, int]:
        return "127.0.0.1", replica.port

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sentinels, "discover_master", stale)
        async with Commands(connect(settings.redis_url, socket_timeout=4.0, name="test", prefix="cyroid")) as commands:
            with pytest.raises(BusUnavailable, match="is no master but a slave"):
                await commands.call("PING")


async def _what_no_replica_has_is_not_acknowledged(group: Group, bus: RedisBus) -> None:
    """It is refused for now; tried again once a replica is back it is there, once."""
    replicas = [one for one in group.nodes if one is not group.master()]
    one, stream = _envelope(3), "cyroid:effects"
    for replica in replicas:
        replica.pause()
    try:
        with pytest.raises(BusUnavailable, match="0 of 1 replicas confirmed"):
            await bus.publish(stream, one)
    finally:
        for replica in replicas:
            replica.resume()
    await insist(bus, stream, [one])
    found = [entry.envelope.id async for entry in bus.tail([stream], after="0", follow=False) if entry.envelope]
    assert found == [one.id]


@asynccontextmanager
async def _serving(settings: Settings, adapters: Adapters, *roles: str) -> AsyncIterator[None]:
    stop = Stop()
    running = asyncio.create_task(run(settings, list(roles), stop, adapters))
    try:
        yield
    finally:
        stop.ask()
        stop.ask()
        await running


async def test_a_range_that_was_added_before_the_master_died_is_deployed_to(group: Group, tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, neither claim nor announcements; services, gateway and agent go on."""
    port, secret = free_port(), "5" * 48
    registry, host = MemoryRegistry(REGISTRY), MemoryEngine(engine_id="host-a")
    engine = MemoryEngine(engine_id="r1", registries={REGISTRY: registry})
    host.add_image("docker.io/library/app:1", [b"base", b"app"])
    ours = Adapters(
        engine=lambda _, __: nullcontext(host),
        registry=lambda _: nullcontext(registry),
        layer_sources=lambda _, __: [MemoryLayers(host)],
        host="a",
    )
    theirs = Adapters(engine=lambda _, __: nullcontext(engine), host="r1")
    services = group.settings(host_id="host-a", registry_address=REGISTRY, lease_seconds=3.0)
    gateway = group.settings(
        "range-gateway", "g", host_id="host-a", gateway_secrets=str(tmp_path), gateway_listen=f"127.0.0.1:{port}"
    )
    agent = Settings(redis_url=f"gateway://r1:{secret}@127.0.0.1:{port}", range_id="r1", drain_seconds=0.0)
    acknowledged: set[str] = set()
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(RedisBus.open(services.redis_url, confirm_replicas=1))
        await stack.enter_async_context(_serving(services, ours, "registry-pusher", "deployer"))
        await stack.enter_async_context(_serving(gateway, ours, "range-gateway"))
        # What `ranges add` does: the id is claimed, the gateway gets the secret's sum, and the agent comes up.
        await _insisting_claim(bus)
        (tmp_path / "r1").write_text(f"{digest(secret)}\n")
        await stack.enter_async_context(_serving(agent, theirs, "agent"))

        async def known() -> bool:
            return await bus.members(RangeKeys("cyroid").known_index) == ["r1"]

        await eventually(known, within_seconds=60)

        async def announce() -> None:
            for number in range(10_000):
                one = _envelope(number)
                with suppress(BusError):
                    await bus.publish("cyroid:effects", one)
                    acknowledged.add(one.id)
                await asyncio.sleep(0)

        announcing = asyncio.create_task(announce())
        await _until(lambda: len(acknowledged) > 20)
        dead = group.master()
        await asyncio.to_thread(dead.kill)
        begun = asyncio.get_running_loop().time()
        request = DeploymentRequested(deployment_id="d1", range_id="r1", images=("docker.io/library/app:1",))
        await insist(bus, STREAMS.deployments, [Envelope(message=request, source="test", subject="r1")])
        assert isinstance(await _end(bus), DeploymentSucceeded)
        took = asyncio.get_running_loop().time() - begun
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
        there = {
            entry.envelope.id async for entry in bus.tail(["cyroid:effects"], after="0", follow=False) if entry.envelope
        }
        assert acknowledged - there == set()
        assert await engine.inspect("docker.io/library/app:1") is not None
        assert group.master() is not dead
        assert took < 90, took  # docs/redis.md has what it took
    await asyncio.to_thread(dead.start)


async def _insisting_claim(bus: RedisBus) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(BusError):
                await claim_range(bus, "cyroid", "r1", host="host-a", now=datetime.now(UTC))
                return
            await asyncio.sleep(0.1)


async def _end(bus: RedisBus) -> DeploymentEnded:
    async with asyncio.timeout(90):
        while True:
            with suppress(BusUnavailable):
                async for entry in bus.tail([STREAMS.deployments], after="0"):
                    if entry.envelope and isinstance(entry.envelope.message, DeploymentEnded):
                        return entry.envelope.message
            await asyncio.sleep(0.1)
