"""The whole stack on an engine and a network of its own, as an operator starts it; taken down and looked after.

Slow (minutes): it makes base images, builds every image and runs four nested engines. `make test-stack` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import Lab
from deploy.lab.engine_server import EngineServer
from deploy.stack.own_network import OwnNetwork

ROOT = Path(__file__).parents[2]
#: Range → engine, and whether its images are in containerd's store.
RANGES = {"r20": ("20.10", False), "r26": ("26.1", False), "r28": ("28.5", False), "r28c": ("28.5", True)}


class Outside(EngineServer):
    """An engine whose bridges and firewall rules are in a network of their own."""

    network: OwnNetwork

    def command(self) -> list[str]:
        return self.network.inside(super().command())


class Stack:
    """What an operator does with a running stack, from outside."""

    def __init__(self, socket: Path, data: Path) -> None:
        self.socket = socket
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "CYROID_DATA_DIR": str(data)}
        self.data = data

    def run(
        self, *command: str, stdin: bytes = b"", check: bool = True, seconds: float = 600
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment, cwd=ROOT, check=False, timeout=seconds
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done

    def tool(self, module: str, *words: str) -> str:
        """One of the stack's own programs."""
        return self.run(sys.executable, "-m", f"deploy.stack.{module}", *words, seconds=900).stdout.decode()

    def docker(self, *words: str, stdin: bytes = b"") -> str:
        return self.run("docker", *words, stdin=stdin).stdout.decode().strip()

    def cyroid(self, *words: str, stdin: bytes = b"", service: str = "api") -> list[dict[str, Any]]:
        """`cyroid-images … --json` in a service's container: the items, or the one object."""
        inside = ["exec", "-i", f"cyroid-images-{service}-1", "cyroid-images", *words, "--json"]
        text = self.docker(*inside, stdin=stdin)
        found = json.loads(text.splitlines()[-1])
        items: list[dict[str, Any]] = found.get("items", [found])
        return items

    def in_range(self, name: str, script: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """A shell as root in a range's container."""
        return self.run("docker", "exec", f"cyroid-range-{name}", "sh", "-c", script, check=check)

    def service(self, verb: str, *names: str) -> None:
        self.docker(verb, *(f"cyroid-images-{name}-1" for name in names))

    def address(self, name: str, network: str) -> str:
        template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return self.docker("inspect", "--format", template, name)


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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only when asked for by name: this takes minutes, `make test-stack` runs it."""
    asked = any("tests/stack" in str(argument) for argument in config.args)
    return None if asked else True
