"""The whole system in a laboratory: Redis, registry, engines, the project's services and an agent per range."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from deploy.lab.engine_server import EngineServer
from deploy.lab.laboratory import Lab
from deploy.lab.logbook import LogBook
from deploy.lab.redis_server import RedisServer
from deploy.lab.registry_server import RegistryServer
from deploy.lab.role_server import ROOT, RoleServer, variables
from deploy.lab.server import free_port, plain_environment
from events.streams import Streams

#: Settings of processes that serve; a command has no use for them.
_OF_PROCESSES = frozenset({"beat_seconds", "drain_seconds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The result of a command: its exit status, its JSON on stdout, its messages on stderr."""

    status: int
    data: Any
    talk: str


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The servers are there already; `start` adds the services, `agent` one range's agent.

    settings    of the services, by field name, over those that follow from the servers
    mkfs_erofs  with it, ranges are shown mounted layers: `services("layer-mounter")` mounts them
    """

    lab: Lab
    redis: RedisServer
    registry: RegistryServer
    host: EngineServer
    ranges: Mapping[str, EngineServer]
    prefix: str = "cyroid"
    settings: Mapping[str, object] = field(default_factory=dict)
    mkfs_erofs: Path | None = None
    api_port: int = field(default_factory=free_port)
    tar_port: int = field(default_factory=free_port)
    upload_port: int = field(default_factory=free_port)

    @property
    def streams(self) -> Streams:
        return Streams(self.prefix)

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def all_settings(self) -> dict[str, object]:
        """All settings of the services."""
        return {
            "redis_url": self.redis.url,
            "key_prefix": self.prefix,
            "host_engine_url": self.host.url,
            "engine_root": self.host.root,
            "registry_url": self.registry.url,
            "registry_address": self.registry.address,
            "registry_storage": self.registry.storage,
            "tar_listen": f"127.0.0.1:{self.tar_port}",
            "tar_url": f"http://127.0.0.1:{self.tar_port}",
            "upload_listen": f"127.0.0.1:{self.upload_port}",
            "upload_url": f"http://127.0.0.1:{self.upload_port}",
            "api_listen": f"127.0.0.1:{self.api_port}",
            "spool_folder": self.lab.folder / "spool",
            "layer_folder": self.lab.layers,
            **({"mkfs_erofs": self.mkfs_erofs} if self.mkfs_erofs else {}),
            "collect_seconds": 0,  # when somebody asks, and whatever disk the laboratory is on
            "store_free_percent": 0,
            "beat_seconds": 1,
            "drain_seconds": 5,
            **self.settings,
        }

    def client_environment(self) -> dict[str, str]:
        """The environment with which `cyroid-images` in another terminal works with this system."""
        return variables({name: value for name, value in self.all_settings().items() if name not in _OF_PROCESSES})

    def services(self, *roles: str, name: str = "services") -> RoleServer:
        """Start the host's side in one process, or some of its roles."""
        return self.lab.start(
            RoleServer(
                name,
                self.lab.place(name),
                self.lab.mark,
                roles=roles or ("all",),
                settings=self.all_settings(),
            )
        )

    def agent(self, range_id: str) -> RoleServer:
        """Start the agent of one of `ranges`."""
        name = f"agent-{range_id}"
        own = {
            "range_id": range_id,
            "engine_url": self.ranges[range_id].agent_url,
            "spool_folder": self.lab.folder / f"spool-{range_id}",
        }
        told = {key: value for key, value in self.all_settings().items() if not key.startswith(("host_", "registry_"))}
        del told["engine_root"]
        if self.mkfs_erofs is not None:
            own["shown_layers"] = self.lab.shown(range_id)
            own["containerd_socket"] = self.ranges[range_id].containerd_socket
        return self.lab.start(
            RoleServer(name, self.lab.place(name), self.lab.mark, roles=["agent"], settings={**told, **own})
        )

    def logbook(self) -> LogBook:
        return LogBook(self.redis.url, self.streams)

    def cli(self, *arguments: str, seconds: float = 180) -> Said:
        """Run `cyroid-images ARGUMENTS --json` to its end, whatever its exit status."""
        return self.cli_together([arguments], seconds=seconds)[0]

    def cli_together(self, commands: Sequence[Sequence[str]], *, seconds: float = 180) -> list[Said]:
        """Several at the same time. Raises subprocess.TimeoutExpired; none is left running."""
        environment = {**plain_environment(), **variables(self.all_settings()), "NO_COLOR": "1"}
        with ExitStack() as stack:
            running = []
            for arguments in commands:
                process = subprocess.Popen(
                    [sys.executable, "-m", "services", *arguments, "--json"],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                stack.callback(_end, process)
                running.append(process)
            return [_said(process, seconds) for process in running]


def _said(process: subprocess.Popen[bytes], seconds: float) -> Said:
    output, talk = process.communicate(timeout=seconds)
    data = msgspec.json.decode(output) if output.strip() else None
    return Said(status=process.returncode, data=data, talk=talk.decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()
