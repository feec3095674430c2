"""The laboratory: starts servers in one folder and leaves nothing behind, this time or the last."""

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

from deploy.lab.base_image import base_image_tar
from deploy.lab.commands import LabError
from deploy.lab.engine_server import EngineServer
from deploy.lab.newer_engines import newer_engine
from deploy.lab.redis_server import RedisServer
from deploy.lab.registry_server import RegistryServer
from deploy.lab.server import MARK, Server, poll

S = TypeVar("S", bound=Server)


def default_cache() -> Path:
    """Where downloads are kept between runs: `IMAGES_LAB_CACHE`, else `~/.cache/cyroid-images`."""
    return Path(os.environ.get("IMAGES_LAB_CACHE") or Path.home() / ".cache" / "cyroid-images")


class Lab:
    """A folder with servers. One laboratory per folder at a time; `keep` leaves the servers' data for the next one."""

    def __init__(self, folder: Path | str, *, cache: Path | None = None, keep: bool = False) -> None:
        self.folder = Path(folder).resolve()
        self.cache = cache or default_cache()
        self._keep = keep
        self._servers: dict[str, Server] = {}
        self._lock: int | None = None

    def __enter__(self) -> Self:
        if os.geteuid():
            raise LabError("engines need root: run this as root")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            os.close(self._lock)
            raise LabError(f"another laboratory is open in {self.folder}: end it, or use another folder") from held
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
    def mark(self) -> str:
        """What its processes carry in their environment."""
        return str(self.folder)

    def redis(self, name: str = "redis", **conf: str) -> RedisServer:
        """A Redis. `conf` are redis.conf directives with `_` for `-`."""
        return self.start(RedisServer(name, self.place(name), self.mark, conf))

    def registry(
        self, name: str = "registry", *, storage: Path | None = None, readonly: bool = False
    ) -> RegistryServer:
        """A registry. With `storage`, a second process on another one's folder."""
        return self.start(RegistryServer(name, self.place(name), self.mark, storage=storage, readonly=readonly))

    def engine(
        self,
        name: str = "host",
        *,
        bridge: bool = False,
        version: str | None = None,
        containerd_store: bool = False,
        options: Sequence[str] = (),
    ) -> EngineServer:
        """An engine: the machine's own version, or `version` "26.1" or "28.5". `options` go to dockerd.

        Newer ones are made on demand, which takes some seconds and a download the first time. With `containerd_store`
        the engine keeps its images in containerd's store.
        """
        if containerd_store and version is None:
            raise LabError("the containerd store needs a newer engine than the machine's: say version='28.5'")
        return self.start(
            EngineServer(
                name,
                self.place(name),
                self.mark,
                bridge=bridge,
                containerd_store=containerd_store,
                options=options,
                programs=newer_engine(version, self.cache) if version else None,
            )
        )

    def base_image_tar(self) -> Path:
        """A small root file system with a shell, for `docker import`; made once, then cached."""
        return base_image_tar(self.cache)

    def place(self, name: str) -> Path:
        """The folder of the server `name`. Raises LabError when there is one of that name."""
        if name in self._servers:
            raise LabError(f"the laboratory has a server called {name}")
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
        raise LabError(f"processes of an earlier run in {folder} do not end: {marked_processes(folder)}")
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
