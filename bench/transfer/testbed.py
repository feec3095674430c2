"""Testbed of the transfer bench: a host engine that stays, and for each run a cold registry and cold range engines."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.lab import EngineServer, Lab, RegistryServer
from deploy.lab.server import Server
from deploy.machine.commands import need, run
from services.adapters.layer_store import LayerStore
from services.core.images.image import EngineImage

_TICKS = os.sysconf("SC_CLK_TCK")
#: Files up to this size stay as they are: they take little room, and there are many.
_ROOM_BYTES = 16 * 1024


@dataclass
class Testbed:
    """The laboratory and its host. Names of servers count up, so that each is new."""

    lab: Lab
    host: EngineServer
    docker: str = field(default_factory=lambda: need("docker", "docker.io"))
    _count: int = 0

    def name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    @contextmanager
    def engines(self, count: int) -> Iterator[list[EngineServer]]:
        """Engines that hold nothing; their data is gone afterwards."""
        made = [self.lab.engine(self.name("range")) for _ in range(count)]
        try:
            yield made
        finally:
            gone(*made)

    @contextmanager
    def registry(self) -> Iterator[RegistryServer]:
        """A registry that holds nothing; its storage is gone afterwards."""
        made = self.lab.registry(self.name("registry"))
        try:
            yield made
        finally:
            gone(made)

    def image(self, name: str) -> EngineImage:
        """An image as the host has it."""
        return inspect(self.docker, self.host, name)

    def verify(self, engine: EngineServer, name: str) -> None:
        """The range's engine reports the host's image id, and the files it keeps give each layer's digest."""
        wanted, found = self.image(name), inspect(self.docker, engine, name)
        if found.image_id != wanted.image_id:
            raise AssertionError(f"{name} is {found.image_id} there, {wanted.image_id} here")
        store = LayerStore(engine.root)
        for diff_id in dict.fromkeys(found.diff_ids):
            digest = hashlib.sha256()
            for chunk in store.read(found, diff_id):
                digest.update(chunk)
            if f"sha256:{digest.hexdigest()}" != diff_id:
                raise AssertionError(f"the layer {diff_id} of {name} has other content there")


def inspect(docker: str, engine: EngineServer, name: str) -> EngineImage:
    form = "{{.Id}} {{.Size}} {{range .RootFS.Layers}}{{.}} {{end}}"
    local_id, size_bytes, *diff_ids = run([docker, "-H", engine.url, "inspect", "-f", form, name]).split()
    return EngineImage(
        local_id=local_id, image_id=local_id, diff_ids=tuple(diff_ids), size_bytes=int(size_bytes), references=(name,)
    )


def gone(*servers: Server) -> None:
    """Stop servers and free the disk space they took; their files, emptied, go with the laboratory.

    ext4 looks past every inode that was freed in the last minutes when it makes a new file (`recently_deleted`): where
    the engine before had 50,000 files, the next one's unpacking takes up to three times as long, whoever it is.
    """
    for server in servers:
        server.terminate()
    for server in servers:
        server.join()
        _emptied(server.folder)


def _emptied(folder: Path) -> None:
    for here, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(here, name)
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size > _ROOM_BYTES:
                os.truncate(path, 0)


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append how long the body took; what others left to be written is written before."""
    os.sync()
    started = time.monotonic()
    yield
    seconds.append(time.monotonic() - started)


def together(commands: Sequence[str]) -> None:
    """Run shell pipes at the same time, all to a good end."""
    running = [
        subprocess.Popen(["bash", "-o", "pipefail", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for command in commands
    ]
    for process, command in zip(running, commands, strict=True):
        _, said = process.communicate()
        if process.returncode:
            raise AssertionError(f"`{command}` failed: {said.decode(errors='replace')[-1000:]}")


def copied(source: Path, target: Path) -> int:
    """`cp` of a folder with fsync of each file; returns the bytes."""
    total_bytes = 0
    for path in sorted(source.rglob("*")):
        if path.is_file():
            there = target / path.relative_to(source)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)
            with there.open("rb") as file:
                os.fsync(file.fileno())
            total_bytes += path.stat().st_size
    return total_bytes


def cpu_seconds(server: Server) -> float:
    """CPU time of a server and all below it, those that have ended too."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            spent[int(entry.name)] = sum(int(one) for one in fields[11:15]) / _TICKS
    family, total = {server.pid}, spent.get(server.pid, 0.0)
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in family} - family
        total += sum(spent[pid] for pid in below)
        family |= below
        grown = bool(below)
    return total


def peak_memory_bytes(server: Server) -> int:
    """The most memory the server's own process ever held (VmHWM)."""
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
