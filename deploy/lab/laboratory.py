"""The laboratory: starts servers in one folder, and removes everything at its end, and what an earlier run left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from deploy.lab.engine_server import EngineServer
from deploy.lab.newer_engines import newer_engine
from deploy.lab.object_storage import ObjectStorage
from deploy.lab.redis_server import RedisServer
from deploy.lab.registry_front import RegistryFront
from deploy.lab.registry_server import SECRET, RegistryServer
from deploy.lab.server import MARK, Server
from deploy.machine.base_image import base_image_tar
from deploy.machine.cache import default_cache
from deploy.machine.commands import MachineError, run
from deploy.machine.polling import poll

S = TypeVar("S", bound=Server)


class Lab:
    """A folder with servers. One laboratory per folder at a time; `keep` leaves the servers' data for the next one."""

    def __init__(self, folder: Path | str, *, cache: Path | None = None, keep: bool = False) -> None:
        self.folder = Path(folder).resolve()
        self.cache = cache or default_cache()
        self._keep = keep
        self._servers: dict[str, Server] = {}
        self._lock: int | None = None
        self._shows_layers = False

    def __enter__(self) -> Self:
        if os.geteuid():
            raise MachineError("engines need root: run this as root")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            os.close(self._lock)
            raise MachineError(f"another laboratory is open in {self.folder}: end it, or use another folder") from held
        end_leftovers(self.folder)
        if not self._keep:
            self._remove_data()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for first in (True, False):
            ending = [server for server in self._servers.values() if server.stops_first == first]
            for server in ending:
                server.terminate()
            for server in ending:
                server.join()
        self._servers.clear()
        end_leftovers(self.folder)
        if not self._keep:
            self._remove_data()
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    @property
    def layers(self) -> Path:
        """A folder for mounts, made when it is first asked for: what is mounted below it appears in engines that were
        started afterwards."""
        folder = self.folder / "layers"
        if not self._shows_layers:
            self._shows_layers = True
            folder.mkdir(exist_ok=True)
            run(["mount", "--bind", str(folder), str(folder)])
            run(["mount", "--make-shared", str(folder)])
        return folder

    def shown(self, range_id: str) -> Path:
        """What a range is shown of `layers`."""
        folder = self.layers / "ranges" / range_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def mark(self) -> str:
        """The environment variable that marks its processes."""
        return str(self.folder)

    def redis(self, name: str = "redis", **conf: str) -> RedisServer:
        """A Redis. `conf` are redis.conf directives with `_` for `-`."""
        return self.start(RedisServer(name, self.place(name), self.mark, conf))

    def registry(
        self,
        name: str = "registry",
        *,
        storage: Path | None = None,
        readonly: bool = False,
        cache: bool = False,
        s3: ObjectStorage | None = None,
        secret: str = SECRET,
    ) -> RegistryServer:
        """A registry. With `storage`, a second process on another one's folder; with `cache`, one that must not be
        collected; with `s3`, one on object storage, where those with the same `secret` are replicas."""
        place = self.place(name)
        return self.start(
            RegistryServer(
                name, place, self.mark, storage=storage, readonly=readonly, cache=cache, s3=s3, secret=secret
            )
        )

    def registry_front(self, one: RegistryServer, two: RegistryServer, name: str = "registry-front") -> RegistryFront:
        """One address for two registries that share their storage."""
        return self.start(RegistryFront(name, self.place(name), self.mark, (one, two)))

    def object_storage(self, name: str = "s3") -> ObjectStorage:
        """An S3 server with a bucket for a registry."""
        return self.start(ObjectStorage(name, self.place(name), self.mark))

    def engine(
        self,
        name: str = "host",
        *,
        bridge: bool = False,
        version: str | None = None,
        containerd_store: bool = False,
        buildkit: bool = True,
        options: Sequence[str] = (),
        shown: Path | None = None,
    ) -> EngineServer:
        """An engine: the machine's own version, or `version` "26.1" or "28.5". `options` go to dockerd.

        Newer ones are made on demand, which takes some seconds and a download the first time. With `containerd_store`
        the engine keeps its images in containerd's store; without `buildkit` its configuration turns BuildKit off. With
        `shown`, a folder below `layers`, it runs under a range's init, which can restart it.
        """
        if containerd_store and version is None:
            raise MachineError("the containerd store needs a newer engine than the machine's: say version='28.5'")
        return self.start(
            EngineServer(
                name,
                self.place(name),
                self.mark,
                bridge=bridge,
                containerd_store=containerd_store,
                options=options,
                programs=newer_engine(version, self.cache) if version else None,
                buildkit=buildkit,
                shown=shown,
            )
        )

    def base_image_tar(self) -> Path:
        """A small root file system with a shell, for `docker import`; made once, then cached."""
        return base_image_tar(self.cache)

    def server(self, name: str) -> Server:
        """The server of that name. Raises MachineError when there is none."""
        if name not in self._servers:
            raise MachineError(f"the laboratory has no server called {name}")
        return self._servers[name]

    def place(self, name: str) -> Path:
        """The folder of the server `name`. Raises MachineError when there is one of that name."""
        if name in self._servers:
            raise MachineError(f"the laboratory has a server called {name}")
        return self.folder / name

    def start(self, server: S) -> S:
        """Start a server of any kind, made with `place(name)` as its folder, and end it with the laboratory."""
        self._servers[server.name] = server
        server.start()
        return server

    def _remove_data(self) -> None:
        for entry in self.folder.iterdir():
            if entry.name != ".lock":
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()


def end_leftovers(folder: Path) -> None:
    """Kill processes of an earlier laboratory in `folder` that still run, and unmount what is mounted below it."""
    for pid in marked_processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not poll(lambda: not marked_processes(folder), seconds=15):
        raise MachineError(f"processes of an earlier run in {folder} do not end: {marked_processes(folder)}")
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mounted = line.split()[4].encode().decode("unicode_escape")
        if mounted.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mounted], check=True, timeout=15)


def marked_processes(folder: Path) -> list[int]:
    """Processes that a laboratory in `folder` started, and their children; containers do not count."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
