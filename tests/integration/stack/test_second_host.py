"""A second host as the Compose stack configures it: each part in a network namespace of its own, with its own address.

Redis, registry and door of the first host, link, cache, range proxy, range gateway and a range of the second, as the
user and with the files that their containers have; an engine in the range pulls, and its agent reports. No engine
starts the parts, so Compose itself is not tried here (`test_merged_configuration.py` reads its files).
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

from deploy.container.prepare import UID, prepare, prepare_further
from deploy.machine.commands import MachineError, need
from deploy.machine.commands import run as run_to_end
from deploy.machine.polling import poll
from deploy.stack import hosts
from deploy.stack.compose import Stack
from services.core.deployments.pull_tokens import PullTokens
from tests.laboratory import ROOT, EngineServer, Lab, plain_environment, variables

pytestmark = pytest.mark.real

FIRST_HOST = "10.9.0.1"
#: Link, cache and door, none of which a range may reach.
REACHED_BY_OTHERS = (
    ("172.30.0.16", 6379),
    ("172.30.0.16", 5000),
    ("172.31.255.242", 5000),
    ("172.31.255.245", 7070),
    (FIRST_HOST, 6380),
)
#: Where containers have their folders; here each part mounts its own, and the machine sees none of it.
MOUNTED = (Path("/run/cyroid"), Path("/cache"), Path("/var/lib/registry"))
#: Name → host, and its addresses there, which are those of docker-compose.yml and its overrides.
PARTS = {
    "redis": ("a", ["172.30.0.17/24"]),
    "registry": ("a", ["172.30.0.16/24"]),
    "host-door": ("a", ["172.30.0.30/24", "172.31.255.245/28"]),
    "tar-server": ("a", ["172.30.0.22/24"]),
    "link": ("b", ["172.30.0.16/24", "172.31.255.245/28"]),
    "registry-cache": ("b", ["172.30.0.29/24", "172.31.255.242/28"]),
    "range-proxy": ("b", ["172.31.255.244/28", "172.30.1.2/29"]),
    "range-gateway": ("b", ["172.30.0.25/24", "172.30.1.3/29"]),
    "range": ("b", ["172.30.1.6/29"]),
}
NAMES = {
    "range-gateway": "172.30.0.16 cyroid-redis cyroid-registry",
    "tar-server": "172.30.0.17 cyroid-redis\n172.30.0.16 cyroid-registry",
    "range": "172.30.1.2 cyroid-registry cyroid-tar cyroid-first-tar\n172.30.1.3 cyroid-gateway",
}


class Networks:
    """A namespace for each part, held by a process, and a bridge for each host. All of it ends with the processes."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._holders: dict[str, int] = {}
        for host in ("a", "b"):
            self._hold(host)
            self.ip(host, "link", "add", "bridge0", "type", "bridge")
            self.ip(host, "link", "set", "bridge0", "up")
        for number, (part, (host, addresses)) in enumerate(PARTS.items()):
            self._hold(part)
            peer = ("peer", "name", f"part{number}", "netns", str(self._holders[host]))
            self.ip(part, "link", "add", "eth0", "type", "veth", *peer)
            self.ip(host, "link", "set", f"part{number}", "master", "bridge0", "up")
            for address in addresses:
                self.ip(part, "addr", "add", address, "dev", "eth0")
            for device in ("lo", "eth0"):
                self.ip(part, "link", "set", device, "up")
        other = ("peer", "name", "wire", "netns", str(self._holders["link"]))
        self.ip("host-door", "link", "add", "wire", "type", "veth", *other)
        for part, address in (("host-door", f"{FIRST_HOST}/24"), ("link", "10.9.0.2/24")):
            self.ip(part, "addr", "add", address, "dev", "wire")
            self.ip(part, "link", "set", "wire", "up")

    def _hold(self, name: str) -> None:
        process = self._start(["unshare", "--net", "sleep", "infinity"], name)
        own = Path("/proc/self/ns/net").readlink()
        assert poll(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own, seconds=30, every=0.01)
        self._holders[name] = process.pid

    def _start(
        self, command: Sequence[str], name: str, more: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [need("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *command],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**plain_environment(), **more},
            )
        self._stack.callback(_end, process)
        return process

    def inside(self, part: str, *command: str) -> list[str]:
        """The command line that runs it in the network of `part`, with the names that are known there."""
        file = self._folder / f"{part}.hosts"
        file.write_text(f"127.0.0.1 localhost\n{NAMES.get(part, '')}\n")
        enter = ["nsenter", f"--net=/proc/{self._holders[part]}/ns/net", "unshare", "--mount", "sh", "-ec"]
        return [*enter, f'mount --bind {file} /etc/hosts; exec "$@"', "sh", *command]

    def start(
        self,
        part: str,
        *command: str,
        mounts: Mapping[str, Path] = MappingProxyType({}),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """As a container would be started: with mounts, and without rights where the container has none."""
        script = "".join(f'mount --bind "{source}" {place}; ' for place, source in mounts.items())
        self._start(self.inside(part, "sh", "-ec", f'{script} exec "$@"', "sh", *command), part, variables)

    def ip(self, name: str, *words: str) -> None:
        run_to_end(["nsenter", f"--net=/proc/{self._holders[name]}/ns/net", need("ip", "iproute2"), *words])

    def reaches(self, part: str, host: str, port: int) -> bool:
        """Whether a connection from there is taken."""
        code = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
        try:
            run_to_end(self.inside(part, sys.executable, "-c", code))
        except MachineError:
            return False
        return True

    def wait(self, part: str, host: str, port: int) -> None:
        reached = poll(lambda: self.reaches(part, host, port), seconds=60, every=0.1)
        logs = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in self._folder.glob("*.log"))
        assert reached, f"{host}:{port} is not reached from {part}\n{logs}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(30)


def _without_rights(*command: str) -> list[str]:
    return ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", *command]


class RangeEngine(EngineServer):
    """An engine in the range's network, with the registry's name as ranges have it."""

    networks: Networks

    def command(self) -> list[str]:
        return self.networks.inside("range", *super().command())

    def pull(self, source: str, token: str) -> str:
        """The last line of the engine's answer."""
        auth = base64.urlsafe_b64encode(json.dumps({"registrytoken": token}).encode()).decode()
        name, _, digest = source.partition("@")
        words = ["curl", "-sS", "--max-time", "120", "--unix-socket", str(self.socket), "-X", "POST"]
        url = f"http://engine/v1.41/images/create?fromImage={name}&tag={digest}"
        return run_to_end([*words, "-H", f"X-Registry-Auth: {auth}", url]).splitlines()[-1]


@pytest.fixture(scope="module")
def folders() -> Iterator[tuple[Path, Path]]:
    """The data folders of both hosts, with the one's bundle in the other, where the parts' user may look in."""
    folder = Path(tempfile.mkdtemp(prefix="two-hosts-"))
    folder.chmod(0o755)
    made = [place for place in MOUNTED if not place.exists()]
    for place in made:
        place.mkdir()

    def compose(stack: Stack, *words: str, stdin: str | None = None, **_: object) -> str:
        if words[0] == "run":
            prepare(stack.data, bundle=stdin)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stack, "compose", compose)
        first = Stack(data=folder / "a", environment={"STACK_DOOR_ADDRESS": FIRST_HOST}, demo=False)
        hosts.open_door(first)
        prepare(first.data)
        hosts.add(first, "b", folder / "b.json")
        second = Stack(data=folder / "b", environment={}, demo=False)
        hosts.take_in((folder / "b.json").read_text(), second.environment)
        hosts.keep(second, (folder / "b.json").read_text())
    prepare(second.data, ranges=["r1"])
    prepare_further(second.data, second.environment["STACK_FIRST_HOST"])
    yield first.data, second.data
    shutil.rmtree(folder, ignore_errors=True)
    for place in made:
        place.rmdir()


def _start_all(networks: Networks, a: Path, b: Path) -> None:
    users = ("--aclfile", f"{a}/redis/users.acl", "--dir", f"{a}/redis", "--appendonly", "yes")
    safe = ("--bind", "172.30.0.17", "--protected-mode", "no", "--maxmemory-policy", "noeviction")
    networks.start("redis", "redis-server", *users, *safe)
    storage = {"/var/lib/registry": a / "registry"}
    networks.start("registry", "docker-registry", "serve", str(ROOT / "deploy/registry.yml"), mounts=storage)
    haproxy = _without_rights(need("haproxy", "haproxy"), "-db", "-f", "/run/cyroid/haproxy.cfg")
    for host, part, secret in ((a, "host-door", "hosts/door"), (b, "link", "link"), (b, "range-proxy", "proxy")):
        networks.start(part, *haproxy, mounts={"/run/cyroid": host / "secrets" / secret})
    nginx = _without_rights(need("nginx", "nginx"), "-e", "stderr", "-c", "/run/cyroid/nginx.conf")
    kept = {"/run/cyroid": b / "secrets/cache", "/cache": b / "cache"}
    networks.start("registry-cache", *nginx, mounts=kept)
    networks.wait("range-gateway", "cyroid-redis", 6379)
    networks.wait("range", "cyroid-registry", 5000)
    gateway = {
        "redis_url_file": "/run/cyroid/redis_url",
        "gateway_listen": "0.0.0.0:7071",
        "gateway_secrets": "/run/cyroid/ranges",
        "host_id": "b",
    }
    serve = (sys.executable, "-m", "services", "serve", "range-gateway")
    secrets = {"/run/cyroid": b / "secrets/gateway"}
    networks.start("range-gateway", *serve, mounts=secrets, variables=variables(gateway))
    tar = {"redis_url_file": "/run/cyroid/redis_url", "tar_listen": "0.0.0.0:7070", "spool_folder": f"{a}/spool"}
    serve = (sys.executable, "-m", "services", "serve", "tar-server")
    networks.start("tar-server", *serve, mounts={"/run/cyroid": a / "secrets/services"}, variables=variables(tar))
    networks.wait("range", "cyroid-gateway", 7071)


def test_ranges_of_a_second_host_need_their_own_host_alone(
    lab: Lab, host_engine_server: EngineServer, folders: tuple[Path, Path]
) -> None:
    """A range pulls and reports through its own host, reaches nothing else, and pulls what its host has while the first
    one is away."""
    a, b = folders
    seed = lab.registry("seed", storage=a / "registry")
    name = f"{seed.address}/team/base:1"
    host_engine_server.docker("import", str(lab.base_image_tar()), name)
    host_engine_server.docker("push", name)
    (known,) = json.loads(host_engine_server.docker("inspect", "--format", "{{json .RepoDigests}}", name))
    source = f"cyroid-registry:5000/team/base@{known.partition('@')[2]}"
    host_engine_server.docker("rmi", name)
    seed.stop()
    with ExitStack() as stack:
        networks = Networks(stack, a.parent)
        _start_all(networks, a, b)
        options = ["--insecure-registry", "cyroid-registry:5000"]
        place = lab.place("far-range")
        engine = RangeEngine("far-range", place, lab.mark, bridge=False, containerd_store=False, options=options)
        engine.networks = networks
        stack.callback(engine.stop)
        lab.start(engine)

        def token(key: str) -> str:
            return PullTokens(key).token(source, total_bytes=0, now=datetime.now(UTC))

        key = (a / "secrets/deployer/registry_pull_key").read_text().strip()
        assert "a token for this pull is needed" in engine.pull(source, token("f" * 48))
        assert "Downloaded newer image" in engine.pull(source, token(key))

        agent = {"redis_url": (b / "secrets/ranges/r1/redis_url").read_text().strip(), "range_id": "r1"}
        agent |= {"engine_url": engine.url, "host_id": "b"}
        networks.start("range", sys.executable, "-m", "services", "serve", "agent", variables=variables(agent))
        password = (a / "secrets/operator/redis_password").read_text().strip()
        reads = ["redis-cli", "-h", "172.30.0.17", "--user", "operator", "--pass", password, "--no-auth-warning"]
        began = networks.inside("redis", *reads, "XRANGE", "cyroid:range:r1:outbox", "-", "+")
        assert poll(lambda: "agent.started" in run_to_end(began), seconds=60, every=0.3)

        for address, port in REACHED_BY_OTHERS:
            assert not networks.reaches("range", address, port), (address, port)

        # The first host's tar server, which asks for the token of an offer; this host has none here.
        tars = ["curl", "-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}"]
        first = networks.inside("range", *tars, "http://cyroid-first-tar:7070/transfers/x")
        assert poll(lambda: run_to_end(first) == "401", seconds=60, every=0.3)
        assert run_to_end(networks.inside("range", *tars, "http://cyroid-tar:7070/transfers/x")) == "503"
        for port in (6379, 5000):  # of the link, on the network on which the range proxy meets it
            assert not networks.reaches("range-proxy", "172.31.255.245", port)

        engine.docker("rmi", source)
        networks.ip("link", "link", "set", "wire", "down")
        assert "Downloaded newer image" in engine.pull(source, token(key))
