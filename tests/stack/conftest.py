"""The whole stack on an engine and a network of its own, as an operator starts it; taken down and looked after.

Slow (minutes): it makes base images, builds every image and runs five nested engines. `make test-stack` runs it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from deploy.stack.nested import nested_options
from deploy.stack.own_network import OwnNetwork
from tests.laboratory import EngineServer, Lab
from tests.stack.listing import hard_image
from tests.stack.operator import PLAIN, PLAIN_ADDRESS, RANGES, Stack, context
from tests.stack.traces import traces

#: A stock engine in a container: what the range's image does to be one, and no agent. Not as the first process, which
#: nobody in the container could hold.
STOCK = "sed '/^exec /,$d' /usr/local/bin/entrypoint >/tmp/prepare && . /tmp/prepare && dockerd; exit $?"


class Outside(EngineServer):
    """An engine whose bridges and firewall rules are in a network of their own."""

    network: OwnNetwork

    def command(self) -> list[str]:
        return self.network.inside(super().command())


@contextmanager
def own_engine(folder: Path) -> Iterator[Path]:
    """The socket of an engine that is nobody else's. STACK_TEST_ENGINE names one to use again, its images built."""
    if "STACK_TEST_ENGINE" in os.environ:
        yield Path(os.environ["STACK_TEST_ENGINE"])
        return
    with OwnNetwork(f"cst{os.getpid() % 10**7}") as network, Lab(folder) as lab:
        engine = Outside("host", folder / "host", str(lab.folder), bridge=True, containerd_store=False, options=[])
        engine.network = network
        engine.start()
        try:
            yield engine.socket
        finally:
            engine.stop()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Built, started, with four ranges. Afterwards it is taken down, and nothing of it may be left."""
    with (
        tempfile.TemporaryDirectory(prefix="cst-", dir="/var/tmp") as folder,  # not a memory file system
        own_engine(Path(folder, "lab")) as socket,
    ):
        there = Stack(socket, Path(folder, "data"))
        there.data.mkdir()
        there.tool("images", "--base", "debootstrap")
        root = Path(there.docker("info", "--format", "{{.DockerRootDir}}"))
        # An engine's own network is mounted from the first container that stands on it until the engine ends.
        there.docker("run", "--rm", "--network", "host", "cyroid/images:latest", "true")
        before = traces(socket, root)
        try:
            there.tool("up")
            for name, (version, containerd) in RANGES.items():
                there.tool("ranges", "add", name, "--engine", version, *(["--containerd-store"] if containerd else []))
            yield there
        finally:
            there.tool("up", "--down", "--purge")
        assert there.docker("ps", "--all", "--quiet") == ""
        assert there.docker("volume", "ls", "--quiet") == ""
        assert set(there.docker("network", "ls", "--format", "{{.Name}}").split()) == {"bridge", "host", "none"}
        assert list(there.data.iterdir()) == []
        # The engine ends a shim a moment after its container.
        assert poll(lambda: not traces(socket, root).beyond(before), seconds=60.0, every=1.0), traces(
            socket, root
        ).beyond(before)


@pytest.fixture(scope="session")
def base(stack: Stack) -> str:
    """The image that every build of these tests is FROM, in the stack's engine."""
    stack.docker("import", "--change", 'CMD ["sh"]', "-", "base:1", stdin=hard_image())
    return "base:1"


@pytest.fixture(scope="session")
def images(stack: Stack, base: str) -> list[str]:
    """One built, one imported, one promoted, and one with what careless copies lose."""
    stack.docker("import", "-", "hard:1", stdin=hard_image())
    stack.cyroid("images", "build", "-", "-t", "built:1", stdin=context("one"))
    stack.docker("tag", "built:1", "elsewhere:1")
    archive = stack.run("docker", "save", "elsewhere:1").stdout
    stack.docker("rmi", "elsewhere:1")
    stack.cyroid("images", "import", "-", "--as", "imported:1", stdin=archive)
    stack.docker("run", "--name", "changed", "--network", "none", "built:1", "sh", "-c", "echo promoted > /etc/content")
    stack.cyroid("images", "promote", "changed", "promoted:1", "--change", 'CMD ["cat", "/etc/content"]')
    stack.docker("rm", "changed")
    return ["built:1", "imported:1", "promoted:1"]


@pytest.fixture(scope="session")
def plain(stack: Stack) -> Iterator[str]:
    """A range without an agent: a stock engine that listens on TCP, on a range's network (the demo's first)."""
    image = "cyroid/range:26.1"
    options = list(nested_options_of(stack, image))
    place = ["--network", "cyroid-ranges-1", "--ip", PLAIN_ADDRESS, "--hostname", PLAIN]
    name = f"cyroid-range-{PLAIN}"
    start = ["--entrypoint", "/bin/sh", image, "-c", STOCK]
    stack.docker("run", "--detach", "--name", name, *place, *options, "--volume", "/var/lib/docker", *start)
    try:
        ready = poll(lambda: stack.in_range(PLAIN, "docker version", check=False).returncode == 0, seconds=120, every=1)
        assert ready, stack.docker("logs", "--tail", "20", name)
        yield PLAIN
    finally:
        stack.docker("rm", "--force", "--volumes", name)


def nested_options_of(stack: Stack, image: str) -> tuple[str, ...]:
    """What a nested engine needs here, asked of the stack's engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{stack.socket}")
        return nested_options(image)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only when asked for by name: this takes minutes, `make test-stack` runs it."""
    asked = any("tests/stack" in str(argument) for argument in config.args)
    return None if asked else True
