"""The host's engine: asked by a role that somebody took over, and by a user of the host without rights."""

from __future__ import annotations

import os
import subprocess

from bench.attacks.register import Result, attack
from bench.attacks.stage import Stage
from deploy.container.engine_proxy import RIGHTS, SOCKET

#: A container with the host's folders, the engine's containers, the same behind an upgrade to HTTP/2, and a build that
#: runs on the host's network. Prints the status of each.
_TAKE_OVER = r"""
import socket
machine = b'{"Image":"%s","Cmd":["true"],"HostConfig":{"Binds":["/:/host"],"Privileged":true}}'
upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
for line, more, body in (
    ("POST /containers/create?name=taken-over", "", machine),
    ("POST /images/x/../../containers/create?name=taken-over", "", machine),
    ("GET /containers/json", "", b""),
    ("GET /_ping", upgrade, b""),
    ("POST /build?t=taken-over:1&networkmode=host", "", b""),
    ("POST /volumes/create", "", b"{}"),
):
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect("/run/engine/engine.sock")
        head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        asking.sendall(head.encode() + body)
        print(asking.recv(4096).split()[1].decode())
"""


@attack
def take_over_the_host_through_a_role(stage: Stage) -> Result:
    """Everything that a role's socket is asked for, beyond the role's own calls, is refused; no container is there."""
    code = _TAKE_OVER.replace("%s", stage.image())
    said = {
        role: stage.docker("exec", "-i", f"cyroid-images-{role}-1", "python", "-", stdin=code.encode()).split()
        for role in RIGHTS
    }
    there = stage.docker("ps", "--all", "--quiet", "--filter", "name=taken-over")
    let_in = {role: answers for role, answers in said.items() if set(answers) != {"403"}}
    return Result(bool(let_in or there), f"{said} {there}")


@attack
def find_the_hosts_socket_in_a_role(stage: Stage) -> Result:
    """In the mounts of every container of ours but the proxy's."""
    names = [name for name in stage.docker("ps", "--format", "{{.Names}}").split() if "engine-proxy" not in name]
    form = "{{.Name}} {{range .Mounts}}{{.Source}} {{end}}"
    lines = stage.docker("inspect", "--format", form, *names).splitlines()
    holders = [line.split()[0] for line in lines if "docker.sock" in line]
    return Result(bool(holders), f"{len(names)} containers; with the engine's socket: {holders}")


@attack
def reach_a_roles_socket_as_somebody_else(stage: Stage) -> Result:
    """A user of the host without rights opens the folders of the roles."""
    reached = []
    for role in RIGHTS:
        path = stage.data / "engine" / role / SOCKET
        done = subprocess.run(
            ["/bin/sh", "-c", '[ -e "$0" ]', str(path)], user=65534, group=65534, extra_groups=[], check=False
        )
        if not path.is_socket() or done.returncode == 0:
            reached.append(str(path))
    return Result(bool(reached), f"as {os.geteuid()} they are there; as 65534 reached: {reached}")
