"""A real engine and a real Redis behind the services."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from events.messages import Message
from events.streams import Streams
from services.resources import Resources, open_resources
from services.settings import Settings
from tests.laboratory import EngineServer, RedisServer


@dataclass
class Host:
    """The composed parts over a real engine and a real Redis, and a docker client to look with."""

    resources: Resources
    url: str

    def docker(self, *arguments: str, given: bytes | None = None) -> str:
        """Run the docker client against the host's engine."""
        done = subprocess.run(["docker", "-H", self.url, *arguments], input=given, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def image_id(self, reference: str) -> str:
        """What the engine calls it; empty if it does not have it."""
        return self.docker("images", "--no-trunc", "-q", reference)

    def all_images(self) -> set[str]:
        """Every image id, tagged or not."""
        return set(self.docker("images", "-a", "--no-trunc", "-q").split())

    async def said(self) -> list[Message]:
        """The images stream so far."""
        entries = (await self.resources.bus()).tail((self.resources.streams.images,), after="0", follow=False)
        return [entry.envelope.message async for entry in entries if entry.envelope]


@pytest.fixture
async def host(host_engine_server: EngineServer, redis_server: RedisServer, key_prefix: str) -> AsyncIterator[Host]:
    """Composed as the command line does it."""
    settings = Settings(
        redis_url=redis_server.url, key_prefix=key_prefix, host_engine_url=host_engine_server.url, stall_seconds=30
    )
    async with open_resources(settings) as resources:
        assert resources.streams == Streams(key_prefix)
        yield Host(resources, host_engine_server.url)


@pytest.fixture
def base(host: Host, base_image_tar: Path) -> str:
    """A small base image with a shell, on the host's engine."""
    name = "base-of-tests:1"
    if not host.image_id(name):
        host.docker("import", str(base_image_tar), name)
    return name


@pytest.fixture
def context(tmp_path: Path, base: str, unique: str) -> Path:
    """A build context with content that no other test has."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY content /content\n")
    (folder / "content").write_text(unique)
    (folder / "secret.key").write_text("not for images")
    (folder / ".dockerignore").write_text("*.key\n")
    return folder
