"""The bus on Sentinel and on a Cluster, real servers on loopback."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from bench.faults.workload import Journal, Outcomes, envelopes, insist, settle, subscription
from deploy.machine.polling import poll
from events.redis.bus import RedisBus
from events.redis.client import connect
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from tests.laboratory import Lab, RedisServer, SentinelServer, free_port
from tests.laboratory import redis_cli as cli


async def _tell(bus: RedisBus, prefix: str, trouble: asyncio.Event | None = None) -> Outcomes:
    """The story of the fault bench on a bus; `trouble` is set once it is under way."""
    streams, journal = Streams(prefix), Journal()
    workers = [Worker(bus, subscription(bus, streams, journal.begin), name=name) for name in ("one", "two")]
    async with TaskGroup() as tasks:
        running = [tasks.create_task(worker.run()) for worker in workers]
        story = envelopes()
        await insist(bus, streams.images, story)
        if trouble is not None:
            await journal.long_began.wait()
            trouble.set()
        await insist(bus, streams.images, story)
        found = await settle(bus, streams, seconds=40)
        for worker in workers:
            await worker.drain(0.5)
        await asyncio.gather(*running)
    return found


async def test_work_goes_on_after_a_sentinel_failover(lab: Lab, key_prefix: str) -> None:
    """The master is killed in the middle of a story; the replica is promoted, and every entry ends once there."""
    master = lab.redis(f"{key_prefix}-master", repl_diskless_sync_delay="0")
    replica = lab.redis(f"{key_prefix}-replica", replicaof=f"127.0.0.1 {master.port}")
    assert poll(lambda: "master_link_status:up" in cli(replica.port, "info", "replication"), seconds=30)
    sentinel = lab.start(SentinelServer("sentinel", lab.place(f"{key_prefix}-sentinel"), lab.mark, master))
    assert poll(lambda: str(replica.port) in cli(sentinel.port, "sentinel", "replicas", "images"), seconds=30)
    trouble = asyncio.Event()

    async def strike() -> None:
        await trouble.wait()
        assert cli(master.port, "wait", "1", "2000") == "1"
        await asyncio.to_thread(master.kill)

    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/images/0"
    async with RedisBus.open(url, timeout_seconds=1.0) as bus, TaskGroup() as tasks:
        assert [concern for concern in await bus.preflight() if concern.stops] == []
        tasks.create_task(strike())
        assert await _tell(bus, key_prefix, trouble) == Outcomes(0, 0)
    assert "role:master" in cli(replica.port, "info", "replication")


@pytest.fixture
def cluster(lab: Lab, key_prefix: str) -> Iterator[list[RedisServer]]:
    """Three masters that share the slots."""
    # Left to itself, a node talks to the others on its port + 10000, which an outgoing connection may have taken.
    talking = [free_port() for _ in range(3)]
    nodes = [
        lab.redis(f"{key_prefix}-node{number}", cluster_enabled="yes", cluster_port=str(port))
        for number, port in enumerate(talking)
    ]
    addresses = [f"127.0.0.1:{node.port}@{port}" for node, port in zip(nodes, talking, strict=True)]
    subprocess.run(
        ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"], check=True, capture_output=True, timeout=60
    )
    assert poll(lambda: all("cluster_state:ok" in cli(node.port, "cluster", "info") for node in nodes), seconds=30)
    yield nodes
    for node in nodes:
        node.stop()


async def test_a_prefix_in_braces_works_in_a_cluster(cluster: list[RedisServer]) -> None:
    """All keys land in one slot, so every script runs; preflight, timers and discovery find that node."""
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    async with RedisBus.open(url, streams=Streams("{cyroid}")) as bus:
        assert [concern for concern in await bus.preflight() if concern.stops] == []
        assert await _tell(bus, "{cyroid}") == Outcomes(0, 0)
        assert "{cyroid}:images" in await bus.discover("{cyroid}:*")
        assert {status.group for status in await bus.groups(["{cyroid}:images"])} == {"faults"}
    holding = [node for node in cluster if cli(node.port, "dbsize") not in ("0", "(integer) 0")]
    assert len(holding) == 1


async def test_what_a_cluster_client_opened_again_is_closed_with_it(cluster: list[RedisServer]) -> None:
    """The library closes its client when a node does not answer; other commands under way connect again meanwhile."""
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    client = connect(url, socket_timeout=5, name="reopened", prefix="{cyroid}")
    slow = asyncio.create_task(client.execute_command("BLPOP", "{cyroid}:nothing", 0.2))
    await asyncio.sleep(0.1)
    library = client._cluster  # type: ignore[attr-defined]  # only the library itself closes it half-way
    await library.aclose()
    with suppress(RedisConnectionError):
        await slow
    node = next(iter(library.nodes_manager.nodes_cache.values()))
    await node.execute_command("PING")
    await client.aclose()
    assert poll(lambda: all("name=reopened" not in cli(node.port, "client", "list") for node in cluster), seconds=5)
