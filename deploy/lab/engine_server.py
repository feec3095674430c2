"""A dockerd with a containerd of its own, in a mount and a PID namespace of its own.

The namespaces are what makes it leave nothing behind: whatever mounts and processes it makes (containerd, shims,
containers) end with it, also when it is killed. Its layer store is plain files in `root`, readable from outside.

It does not touch the machine's network. `--bridge=none --iptables=false` are not enough for that: an engine started
so removes an interface called docker0, which may be another engine's. So where there is one, dockerd runs without the
capability to change networks, while containerd, which starts the containers, keeps it. (Containers have no network
either way; engines from 27 on cannot start any without that capability, but pull, load and save.)
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.lab.server import Server, answers_ok
from deploy.machine.commands import MachineError, need, run

PROJECT = Path(__file__).parents[2]
INIT, SEEDER = PROJECT / "dind/init.py", PROJECT / "dind/containerd_seed.py"
DOCKER0 = Path("/sys/class/net/docker0")

# containerd's shims keep their sockets at this fixed place. A memory file system over it, in the namespace, holds
# those and all other run-time state: short paths for sockets, empty at each start, gone with the namespace.
_RUN = "/run/containerd"
_ENTER = f"""
mkdir -p {_RUN} && mount -t tmpfs tmpfs {_RUN} || exit
containerd --config "$1" &
until [ -S {_RUN}/containerd.sock ]; do
    kill -0 $! || exit
    sleep 0.02
done
shift
exec "$@"
"""
# The same under the init of a range's container, which can restart the engine while containerd stays.
_SUPERVISE = f"""
mkdir -p {_RUN} && mount -t tmpfs tmpfs {_RUN} || exit
containerd=$1
shift
exec "$@" --run containerd containerd --config "$containerd" --run engine sh -c '
    until [ -S {_RUN}/containerd.sock ]; do sleep 0.02; done
    exec "$@"' sh """


class EngineServer(Server):
    """`root` is the data-root, `url` what `DOCKER_HOST` takes. `options` are further dockerd options.

    `programs` is a folder with another dockerd and containerd than the machine's. With `shown`, a folder in which the
    host shows mounted layers, the engine runs under the init of a range's container (`control`), and `agent_url` is a
    socket for the agent alone.
    """

    start_seconds = 60.0

    def __init__(
        self,
        name: str,
        folder: Path,
        mark: str,
        *,
        bridge: bool,
        containerd_store: bool,
        options: Sequence[str],
        programs: Path | None = None,
        buildkit: bool = True,
        shown: Path | None = None,
    ) -> None:
        super().__init__(name, folder, mark)
        self._shown = shown
        self.root = folder / "data"
        self.socket = folder / "docker.sock"
        self._bridge = bridge
        self._features = {"containerd-snapshotter": containerd_store} | ({} if buildkit else {"buildkit": False})
        self._containerd_store = containerd_store
        self._programs = programs
        self._options = list(options)
        if len(os.fsencode(self.socket)) > 107:
            raise MachineError(
                f"{self.socket} is too long for a socket's name (107 bytes at most): use a shorter folder"
            )

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def agent_url(self) -> str:
        """What an agent takes."""
        return f"unix://{self._agent_socket}" if self._shown else self.url

    @property
    def control(self) -> Path:
        """The socket of its init."""
        return self.folder / "control.sock"

    @property
    def _agent_socket(self) -> Path:
        return self.folder / "agent.sock"

    def prepare(self) -> None:
        for path in (self.socket, self._agent_socket):
            path.unlink(missing_ok=True)
        # Files of its own: the machine's configuration is for another engine.
        self._config.write_text(json.dumps({"features": self._features, "live-restore": self._shown is not None}))
        self._containerd.write_text(
            f'version = 2\nroot = "{self.root}/containerd/daemon"\nstate = "{_RUN}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{_RUN}/containerd.sock"\n'
        )

    @property
    def _config(self) -> Path:
        return self.folder / "daemon.json"

    @property
    def _containerd(self) -> Path:
        return self.folder / "containerd.toml"

    def environment(self) -> dict[str, str]:
        # The engine looks for containerd and runc here.
        inherited = super().environment()
        machine = f"{inherited.get('PATH', '')}:/usr/sbin:/sbin"
        return {**inherited, "PATH": f"{self._programs}:{machine}" if self._programs else machine}

    def command(self) -> list[str]:
        spare = DOCKER0.exists() and not self._bridge
        # As a slave, its namespace sees what the machine mounts later, and the machine sees nothing of it.
        namespaces = ["--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
        dockerd = str(self._programs / "dockerd") if self._programs else need("dockerd", "docker.io")
        engine = [
            *([need("setpriv", "util-linux"), "--bounding-set", "-net_admin", "--"] if spare else []),
            *[dockerd, "--containerd", f"{_RUN}/containerd.sock", "--config-file", str(self._config)],
            *["--data-root", str(self.root), "--exec-root", f"{_RUN}/docker", "--pidfile", f"{_RUN}/docker.pid"],
            *["--host", self.url, "--insecure-registry", "127.0.0.0/8", "--shutdown-timeout", "2"],
            *(["--host", self.agent_url] if self._shown else []),
            *([] if self._bridge else ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]),
            *([] if self._containerd_store else ["--storage-driver", "overlay2"]),
            *self._options,
        ]
        script = _ENTER if self._shown is None else _SUPERVISE + shlex.join(engine)
        inside = [need("unshare", "util-linux"), *namespaces, "--", "/bin/sh", "-c", script, "sh"]
        return [*inside, str(self._containerd), *(engine if self._shown is None else self._init(self._shown))]

    def _init(self, shown: Path) -> list[str]:
        options: dict[str, object] = {"layers": shown, "data-root": self.root, "control": self.control}
        options["clients"] = self.socket
        if self._containerd_store:
            seeder = [sys.executable, "-ES", str(SEEDER), "--shown", str(shown)]
            seeder += ["--data-root", str(self.root), "--socket", f"{_RUN}/containerd.sock"]
            options["seeder"] = shlex.join(seeder)
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, str(INIT), *words]

    @property
    def containerd_socket(self) -> Path:
        """Its containerd, as it is reached from outside its namespace while it runs; the same place after a restart."""
        return self.folder / "containerd.sock"

    @property
    def pid(self) -> int:
        """The engine's own process, as seen from outside its namespace."""
        children = _children(self._child_pid())
        if not children:
            raise MachineError(f"{self.name} does not run")
        return children[0]

    def answers(self) -> bool:
        if not engine_answers(self.socket):
            return False
        link = self.folder / "containerd.sock"
        target = f"/proc/{self.pid}/root{_RUN}/containerd.sock"
        if not link.is_symlink() or os.readlink(link) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        return True

    def version(self) -> str:
        return self.docker("version", "--format", "{{.Server.Version}}").strip()

    def docker(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """What the docker client says when it talks to this engine. Raises MachineError with its complaint."""
        # A person's own settings of the client (context, TLS, API version) are for another engine.
        own = {name: value for name, value in super().environment().items() if not name.startswith("DOCKER_")}
        client = {"DOCKER_HOST": self.url, "DOCKER_CONFIG": str(self.folder / "client"), "DOCKER_BUILDKIT": "0"}
        return run(
            [need("docker", "docker.io"), *arguments],
            env={**own, **client},
            stdin=stdin,
            seconds=seconds,
        )

    def layers(self, reference: str) -> tuple[str, ...]:
        """The diff IDs of an image, base first. Raises MachineError when the engine does not have it."""
        return tuple(json.loads(self.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", reference)))

    def names(self) -> set[str]:
        """Every image name the engine knows, as `docker images` shows them, digests too; `<none>` parts included."""
        form = "{{.Repository}}:{{.Tag}}@{{.Digest}}"
        return set(self.docker("image", "ls", "--all", "--digests", "--format", form).split())

    def _family(self) -> list[int]:
        # containerd does the transfers of newer engines, so it freezes with the engine.
        return _descendants(self.pid)


def engine_answers(path: Path) -> bool:
    """Whether an engine answers at the socket `path`, within a second."""
    return answers_ok(_UnixConnection(path), "/_ping")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=1)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(1)
        self.sock.connect(str(self._path))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found.extend(_descendants(int(child)))
    return found
