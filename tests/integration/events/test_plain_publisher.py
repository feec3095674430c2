"""A service in another language needs nothing but XADD, as docs/publishing.md shows it, and can read its errors."""

from __future__ import annotations

import asyncio
import re
import subprocess
import uuid
from pathlib import Path

from events.bus import Delivery
from events.dead_letters import dead_letters
from events.messages import ImageBuilt
from events.redis.bus import RedisBus
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from events.worker.worker import Worker
from tests.laboratory import RedisServer

PAGE = Path(__file__).parents[3] / "docs" / "publishing.md"
IMAGE_ID = f"sha256:{'a' * 64}"


def example() -> str:
    """The script that the page shows."""
    (script,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(script)


def publish(port: int, prefix: str, event_id: str, image_id: str = IMAGE_ID) -> None:
    environment = {"PORT": str(port), "PREFIX": prefix, "ID": event_id, "IMAGE_ID": image_id, "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-euc", example()], env=environment, check=True, capture_output=True, timeout=10)


async def test_redis_cli_is_a_publisher(redis_server: RedisServer, key_prefix: str) -> None:
    """Added twice with one id it is handled once; malformed it is a dead letter with its bytes and the reason."""
    streams = Streams(key_prefix)
    event_id = str(uuid.uuid4())
    publish(redis_server.port, key_prefix, event_id)
    publish(redis_server.port, key_prefix, "broken", image_id='", "reference": 7, "x": "')
    publish(redis_server.port, key_prefix, event_id)
    publish(redis_server.port, key_prefix, "last")
    handled: list[str] = []
    done = asyncio.Event()

    async def handle(delivery: Delivery[ImageBuilt]) -> None:
        handled.append(delivery.envelope.id)
        if delivery.envelope.id == "last":
            done.set()

    subscription = Subscription(
        group="g",
        streams=lambda: [streams.images],
        handlers=Handlers().on(ImageBuilt, handle, key=None, give_up=None),
        dead_stream=streams.dead,
        slots=1,
    )
    async with RedisBus.open(redis_server.url) as bus, TaskGroup() as tasks:
        worker = Worker(bus, subscription)
        tasks.create_task(worker.run())
        async with asyncio.timeout(20):
            await done.wait()
        await worker.drain(5)
        (letter,) = await dead_letters(bus, streams.dead)
    assert handled == [event_id, "last"]
    assert (letter.reason, letter.fields[b"id"]) == ("bad_data", b"broken")
