"""Transfer methods: a tar stream, push and pull, and this project's services."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from bench.transfer.testbed import Testbed, cpu_seconds, gone, peak_memory_bytes, together
from deploy.lab import EngineServer, RedisServer, RegistryServer
from deploy.lab.role_server import RoleServer
from deploy.lab.system import System
from deploy.machine.commands import run
from events.envelope import Envelope, new_id
from events.messages import (
    DeploymentCancelled,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentRequested,
    DeploymentSucceeded,
    ImageOutcome,
    ImagePushed,
    ImageReady,
    Message,
    PullRequested,
    PushRequested,
)
from events.redis.bus import RedisBus

ROLES = ("registry-pusher", "deployer", "tar-server")
DEPLOY_SECONDS = 900.0


def tar(testbed: Testbed, ranges: Sequence[EngineServer], image: str) -> None:
    """`save | load`, one pipe per range, all started together: what CYROID does today."""
    together(
        [f"{testbed.docker} -H {testbed.host.url} save {image} | {testbed.docker} -H {one.url} load" for one in ranges]
    )


def push(testbed: Testbed, registry: RegistryServer, image: str) -> str:
    """`docker push`; the name in the registry. The host keeps no further name."""
    name = f"{registry.address}/{image}"
    run([testbed.docker, "-H", testbed.host.url, "tag", image, name])
    run([testbed.docker, "-H", testbed.host.url, "push", "-q", name], seconds=DEPLOY_SECONDS)
    run([testbed.docker, "-H", testbed.host.url, "rmi", name])
    return name


def upload_alone(registry: RegistryServer, blobs: Sequence[Path]) -> None:
    """The same blobs from files into an empty registry, three at a time, by a client that does nothing else.

    One PATCH with a known length each, largest first: what the registry itself needs to hash and write them.
    """
    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(lambda blob: _upload(registry, blob), blobs):
            pass


def _upload(registry: RegistryServer, blob: Path) -> None:
    connection = http.client.HTTPConnection(registry.address, timeout=DEPLOY_SECONDS, blocksize=1 << 20)
    try:
        location = _asked(connection, "POST", "/v2/alone/blobs/uploads/", 202)
        with blob.open("rb") as content:
            location = _asked(connection, "PATCH", location, 202, content=content, size_bytes=blob.stat().st_size)
        _asked(connection, "PUT", f"{location}&digest=sha256:{blob.parent.name}", 201)
    finally:
        connection.close()


def _asked(
    connection: http.client.HTTPConnection,
    method: str,
    location: str,
    status: int,
    *,
    content: BinaryIO | None = None,
    size_bytes: int = 0,
) -> str:
    """One request; the path of the location that the answer names."""
    headers = {"Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"}
    connection.request(method, location, body=content, headers=headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != status:
        raise AssertionError(f"the registry answered {answer.status} to {method} {location}")
    parts = urlsplit(answer.headers["Location"])
    return f"{parts.path}?{parts.query}"


def pull(testbed: Testbed, ranges: Sequence[EngineServer], name: str, image: str) -> None:
    """`docker pull` in each range at once, under the image's own name in the end."""
    together(
        [
            f"{testbed.docker} -H {one.url} pull -q {name} && {testbed.docker} -H {one.url} tag {name} {image}"
            for one in ranges
        ]
    )


@dataclass
class Ours:
    """The project's services as processes, one per role, with an agent per range."""

    testbed: Testbed
    system: System
    services: dict[str, RoleServer]
    agents: dict[str, RoleServer]
    ranges: dict[str, EngineServer]

    def deploy(self, image: str) -> dict[str, float]:
        """Deploy to every range and wait for all; seconds and bytes as the messages tell them."""
        ended, pushed, moments = self._to_the_end(image)
        outcomes = [outcome for one in ended for outcome in one.images]
        return {
            "push_seconds": sum(one.seconds for one in pushed),
            "push_bytes": sum(one.sent_bytes for one in pushed),
            "range_seconds": max(outcome.seconds for outcome in outcomes),
            "range_bytes": max(outcome.sent_bytes for outcome in outcomes),
            **_between(moments),
        }

    def deployed(self, image: str) -> list[float]:
        """Deploy to every range and wait for all; the seconds of each range's deployment."""
        return [one.seconds for one in self._to_the_end(image)[0]]

    def outcomes(self, image: str) -> list[ImageOutcome]:
        """Deploy to every range and wait for all; how the image came to each range."""
        return [outcome for one in self._to_the_end(image)[0] for outcome in one.images]

    def pushed(self, image: str) -> None:
        """The registry has it when this returns."""
        said = self.system.cli("images", "push", image, seconds=DEPLOY_SECONDS)
        if said.status:
            raise AssertionError(f"{image} was not pushed: {said.talk}")

    def _to_the_end(self, image: str) -> tuple[list[DeploymentEnded], list[ImagePushed], dict[type[Message], float]]:
        ended, pushed, moments = asyncio.run(self._deploy(image))
        failed = [one for one in ended if isinstance(one, DeploymentFailed)]
        if failed:
            raise AssertionError(f"{image} was not deployed: {failed[0].images}")
        return ended, pushed, moments

    async def _deploy(self, image: str) -> tuple[list[DeploymentEnded], list[ImagePushed], dict[type[Message], float]]:
        streams = self.system.streams
        wanted = {new_id(): range_id for range_id in self.ranges}
        ended: list[DeploymentEnded] = []
        pushed: list[ImagePushed] = []
        async with asyncio.timeout(DEPLOY_SECONDS), RedisBus.open(self.system.redis.url, streams=streams) as bus:
            requests = [
                Envelope(
                    message=DeploymentRequested(deployment_id=one, range_id=range_id, images=(image,)),
                    source="bench",
                    subject=range_id,
                )
                for one, range_id in wanted.items()
            ]
            began = {
                stream: [entry.entry_id async for entry in bus.tail([stream], after="0", follow=False)][-1:]
                for stream in (*self._said_to_and_by_ranges(), streams.images, streams.deployments)
            }
            await bus.publish(streams.deployments, *requests)
            after = {stream: (ids or ["0"])[0] for stream, ids in began.items()}
            moments: dict[type[Message], float] = {}
            async for entry in bus.tail(list(after), after=after):
                message = entry.envelope.message if entry.envelope else None
                if message is not None:
                    moments[type(message)] = int(entry.entry_id.partition("-")[0]) / 1000
                if isinstance(message, ImagePushed):
                    pushed.append(message)
                if isinstance(message, DeploymentSucceeded | DeploymentFailed | DeploymentCancelled):
                    ended += [message] if message.deployment_id in wanted else []
                if len(ended) == len(wanted):
                    break
        return ended, pushed, moments

    def _said_to_and_by_ranges(self) -> list[str]:
        streams = self.system.streams
        return [make(range_id) for range_id in self.ranges for make in (streams.inbox, streams.outbox)]

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by what does the work."""
        spent = {role: cpu_seconds(server) for role, server in self.services.items()}
        spent["agents"] = sum(cpu_seconds(server) for server in self.agents.values())
        spent["registry"] = cpu_seconds(self.system.registry) if self.system.registry.running else 0.0
        spent["host engine"] = cpu_seconds(self.testbed.host)
        spent["range engines"] = sum(cpu_seconds(server) for server in self.ranges.values())
        return spent

    def peaks(self) -> dict[str, int]:
        """The most memory each role's process ever held."""
        peaks = {role: peak_memory_bytes(server) for role, server in self.services.items()}
        peaks["agent"] = max(peak_memory_bytes(server) for server in self.agents.values())
        return peaks


def _between(moments: dict[type[Message], float]) -> dict[str, float]:
    """Seconds from one message to the next, by the times that Redis gave them; the last one of each kind counts."""
    steps: tuple[tuple[str, type[Message], type[Message]], ...] = (
        ("requested_to_push", DeploymentRequested, PushRequested),
        ("push_to_pushed", PushRequested, ImagePushed),
        ("pushed_to_pull", ImagePushed, PullRequested),
        ("pull_to_ready", PullRequested, ImageReady),
        ("ready_to_succeeded", ImageReady, DeploymentSucceeded),
    )
    return {
        name: round(moments[after] - moments[before], 3)
        for name, before, after in steps
        if before in moments and after in moments
    }


@contextmanager
def services(
    testbed: Testbed, redis: RedisServer, registry: RegistryServer, ranges: Sequence[EngineServer], **settings: object
) -> Iterator[Ours]:
    """Started and ready; gone afterwards. `settings` of the services, by field name."""
    named = {one.name: one for one in ranges}
    system = System(
        lab=testbed.lab,
        redis=redis,
        registry=registry,
        host=testbed.host,
        ranges=named,
        prefix=testbed.name("bench"),
        settings=settings,
    )
    started: list[RoleServer] = []
    try:
        for role in ROLES:
            started.append(system.services(role, name=testbed.name(role)))
        for range_id in named:
            started.append(system.agent(range_id))
        yield Ours(
            testbed,
            system,
            dict(zip(ROLES, started, strict=False)),
            dict(zip(named, started[len(ROLES) :], strict=True)),
            named,
        )
    finally:
        gone(*started)
