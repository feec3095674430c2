"""From a shell inside a range, as root, with all that its agent has: what is not the range's own stays closed."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from deploy.machine.polling import poll
from tests.stack.operator import Stack
from tests.stack.traces import inside, listener

CONNECT = "python3 -c \"import socket; socket.create_connection(('{host}', {port}), timeout=4); print('open')\""
REQUEST = """python3 - <<'END'
import urllib.request, urllib.error
request = urllib.request.Request("http://cyroid-registry:5000{path}", method="{method}", data={data!r})
try:
    print(urllib.request.urlopen(request, timeout=10).status)
except urllib.error.HTTPError as refused:
    print(refused.code)
END"""

PORT = 7999
LISTEN = f"""
import socket
servers = [socket.create_server(("", {PORT}), family=family) for family in (socket.AF_INET, socket.AF_INET6)]
print("ready", flush=True)
import threading
threading.Event().wait()
"""


def test_what_a_range_needs_is_open(stack: Stack) -> None:
    """The control: proxy and gateway answer, so what fails below does not fail for want of a network."""
    for host, port in (
        ("cyroid-registry", 5000),
        ("cyroid-gateway", 7071),
        ("cyroid-tar", 7070),
        ("cyroid-first-tar", 7070),
    ):
        assert b"open" in stack.in_range("r28", CONNECT.format(host=host, port=port)).stdout
    assert b"401" in stack.in_range("r28", REQUEST.format(path="/v2/", method="GET", data=None)).stdout
    assert stack.redis("GET", "cyroid:range:r28:alive")  # the agent beats through its gateway


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/evil/blobs/uploads/"),
        ("PUT", "/v2/evil/manifests/latest"),
        ("DELETE", "/v2/evil/manifests/sha256:" + "0" * 64),
        ("DELETE", "/v2/evil/blobs/sha256:" + "0" * 64),
    ],
)
def test_the_registry_takes_nothing_from_a_range(method: str, path: str, stack: Stack) -> None:
    """Uploading, tagging and deleting answer 405: the proxy that ranges reach lets nothing of the kind through."""
    said = stack.in_range("r28", REQUEST.format(path=path, method=method, data=b"{}"))
    assert said.stdout.strip() == b"405"


def test_a_push_from_a_range_fails(stack: Stack) -> None:
    """`docker push` with the range's own engine leaves nothing in the registry."""
    name = "cyroid-registry:5000/evil:1"
    script = f"tar -C /etc -c hostname | docker import - {name} && docker push {name}"
    assert stack.in_range("r28", script, check=False).returncode != 0
    assert "evil" not in stack.docker("exec", "cyroid-images-registry-1", "wget", "-qO-", "127.0.0.1:5000/v2/_catalog")


def test_other_places_cannot_be_reached(stack: Stack) -> None:
    """Another range's engine, the registry's other side, the API: no connection, though each of them listens."""
    other = stack.address("cyroid-range-r26", "cyroid-ranges-r26")
    near = ["exec", "cyroid-images-agent-pool-1", "sh", "-c", CONNECT.format(host=other, port=2375)]
    assert stack.docker(*near) == "open"  # the control: who is on that network reaches it
    places = {
        "another range's engine": (other, 2375),
        "the registry for writing": ("172.30.0.16", 5000),
        "Redis": ("172.30.0.17", 6379),
        "the tar server": ("172.30.0.22", 7070),
        "the API": ("172.30.0.23", 8070),
    }
    for what, (host, port) in places.items():
        if host != other:
            near = ["exec", "cyroid-images-tracker-1", "sh", "-c", CONNECT.format(host=host, port=port)]
            assert stack.docker(*near) == "open", what
        said = stack.in_range("r28", CONNECT.format(host=host, port=port), check=False)
        assert said.returncode != 0, what
        assert b"open" not in said.stdout, what


@pytest.fixture
def host_listens(stack: Stack) -> Iterator[int]:
    """A program of the host's that listens on every address it has, as a careless engine on TCP would; its process."""
    engine = listener(stack.socket)
    command = ["nsenter", f"--net=/proc/{engine}/ns/net", "--", sys.executable, "-c", LISTEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield engine
        finally:
            server.kill()


def test_the_host_cannot_be_reached_over_ipv4(stack: Stack, host_listens: int) -> None:
    """Whatever address of the host's a range asks for, with the route it makes itself, nothing is answered."""
    lines = inside(host_listens, "ip", "-4", "-o", "address", "show").splitlines()
    addresses = {line.split()[3].partition("/")[0] for line in lines} - {"127.0.0.1"}
    gateway = stack.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "cyroid-ranges-r28")
    assert {"172.30.0.1", "172.17.0.1"} <= addresses
    near = ["exec", "cyroid-images-tracker-1", "sh", "-c", CONNECT.format(host="172.30.0.1", port=PORT)]
    assert stack.docker(*near) == "open"  # the control: the host does listen, and a container of its own reaches it
    for host in sorted({*addresses, gateway}):
        connect = CONNECT.format(host=host, port=PORT)
        assert stack.in_range("r28", connect, check=False).returncode != 0, host
        route = f"ip route replace {host}/32 dev eth0"
        said = stack.in_range("r28", f"{route} && {connect}; s=$?; ip route del {host}/32; exit $s", check=False)
        assert said.returncode != 0, f"{host} with a route of the range's own"
        assert b"open" not in said.stdout


@dataclass(frozen=True, slots=True)
class Ipv6:
    """A range that has switched IPv6 on for its link, and the host behind its bridge. `engine`: the host's process."""

    stack: Stack
    engine: int
    bridge: str

    def switch(self, state: str = "") -> str:
        """Whether the host's IPv6 is off on the bridge, "1" or "0"; before that set, if `state` says how."""
        file = f"/proc/sys/net/ipv6/conf/{self.bridge}/disable_ipv6"
        return inside(self.engine, "sh", "-ec", f"{f'echo {state} >{file};' if state else ''} cat {file}").strip()

    def reached(self, host: str) -> bool:
        """Whether a range gets an answer at the host's address `host`, which it sends straight to the bridge."""
        there = self.link["address"]
        way = f"ip -6 route replace {host}/128 dev eth0 metric 1; ip -6 neigh replace {host} lladdr {there} dev eth0"
        connect = CONNECT.format(host=f"{host}%eth0" if host == self.link_local else host, port=PORT)
        return self.stack.in_range("r28", f"{way}; {connect}", check=False).stdout == b"open\n"

    @property
    def link(self) -> dict[str, Any]:
        (found,) = json.loads(inside(self.engine, "ip", "-j", "link", "show", "dev", self.bridge))
        return dict(found)

    @property
    def link_local(self) -> str:
        """The address that the kernel gives the bridge (RFC 4291, appendix A), whether it has it now or not."""
        parts = [int(part, 16) for part in self.link["address"].split(":")]
        parts = [parts[0] ^ 2, *parts[1:3], 0xFF, 0xFE, *parts[3:]]
        return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(parts)))


#: An address of the host's on another link than the bridge.
FAR = "fd00:c::1"


@pytest.fixture
def ipv6(stack: Stack, host_listens: int) -> Iterator[Ipv6]:
    """Range r28 has done what root in it can."""
    form = '{{index .Options "com.docker.network.bridge.name"}}'
    bridge = stack.docker("network", "inspect", "--format", form, "cyroid-ranges-r28")
    inside(host_listens, "ip", "-6", "address", "add", f"{FAR}/128", "dev", "lo")
    own = "until ip -6 address show dev eth0 scope link -tentative | grep -q fe80; do sleep 0.1; done"
    stack.in_range("r28", f"echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; {own}")
    try:
        yield Ipv6(stack, host_listens, bridge)
    finally:
        stack.in_range("r28", "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
        inside(host_listens, "ip", "-6", "address", "del", f"{FAR}/128", "dev", "lo")


def test_the_host_cannot_be_reached_over_ipv6(ipv6: Ipv6) -> None:
    """Neither at the bridge's own address nor at another of the host's; when the guard is away and the switch on, as
    after a restart of the machine, at both, until the guard comes or the rule that the documentation names."""
    hosts = (ipv6.link_local, FAR)
    of_demo = [Ipv6(ipv6.stack, ipv6.engine, bridge) for bridge in ("cyr-1", "cyr-2")]
    assert [one.switch() for one in (ipv6, *of_demo)] == ["1", "1", "1"]
    assert not inside(ipv6.engine, "ip", "-6", "-o", "address", "show", "dev", ipv6.bridge)
    assert not any(ipv6.reached(host) for host in hosts)

    ipv6.stack.service("kill", "bridge-guard")
    assert ipv6.switch("0") == "0"
    # The control. The bridge's address takes a second or two to be usable.
    for host in hosts:
        assert poll(partial(ipv6.reached, host), seconds=30.0, every=1.0), f"{host}: there is nothing to be closed"
    rule = ["PREROUTING", "-i", "cyr-+", "-j", "DROP"]
    inside(ipv6.engine, "ip6tables", "-t", "raw", "-I", *rule)
    assert not any(ipv6.reached(host) for host in hosts)
    inside(ipv6.engine, "ip6tables", "-t", "raw", "-D", *rule)
    assert all(ipv6.reached(host) for host in hosts)

    ipv6.stack.service("start", "bridge-guard")
    assert ipv6.switch() == "1"
    assert not any(ipv6.reached(host) for host in hosts)


def test_the_guard_closes_what_is_opened_beside_it(ipv6: Ipv6) -> None:
    """A bridge whose switch is turned is closed again by itself, and so is one that comes new."""
    ipv6.switch("0")
    assert poll(lambda: ipv6.switch() == "1", seconds=30.0, every=0.2)
    inside(ipv6.engine, "ip", "link", "add", "cyr-new", "type", "bridge")
    try:
        new = Ipv6(ipv6.stack, ipv6.engine, "cyr-new")
        assert poll(lambda: new.switch() == "1", seconds=30.0, every=0.2)
    finally:
        inside(ipv6.engine, "ip", "link", "delete", "cyr-new")


def test_no_service_forwards_for_a_range(stack: Stack) -> None:
    """With a route through each container that stands on several networks, the others are as far away as before."""
    other = stack.address("cyroid-range-r26", "cyroid-ranges-r26")
    for door in ("range-proxy", "range-gateway", "agent-pool"):
        via = stack.address(f"cyroid-images-{door}-1", "cyroid-ranges-r28")
        for host, port in ((other, 2375), ("172.30.0.16", 5000)):
            route = f"ip route replace {host}/32 via {via}"
            connect = CONNECT.format(host=host, port=port)
            said = stack.in_range("r28", f"{route} && {connect}; s=$?; ip route del {host}/32; exit $s", check=False)
            assert said.returncode != 0, f"{host} through {door}"
            assert b"open" not in said.stdout, f"{host} through {door}"


def test_no_engine_is_in_a_range_but_its_own(stack: Stack) -> None:
    """The only engine behind a socket in a range is that range's; the host's socket is nowhere in its files."""
    mounts = stack.in_range("r28", "cat /proc/self/mountinfo").stdout.decode()
    assert str(stack.socket) not in mounts
    assert stack.in_range("r28", "docker info --format '{{.Name}}'").stdout.strip() == b"r28"
