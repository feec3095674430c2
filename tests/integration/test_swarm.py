"""deploy/swarm.yml on a Swarm of one node: the engine takes every service, and each gets the rights that it has here.

The images are stand-ins that only sleep; what is tried is what the Swarm makes of the file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.container.prepare import prepare
from deploy.machine.commands import need, run
from deploy.machine.polling import poll
from tests.laboratory import ROOT, Lab, SwarmNode, swarm_node

pytestmark = pytest.mark.real

FILE = ROOT / "deploy/swarm.yml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
STACK = "cyroid-images"
_SLEEP = b"#!/bin/sh\ncase $0 in *python | *redis-cli | *wget) echo PONG ; exit ;; esac\nexec sleep 1000\n"
_PROGRAMS = ("cyroid-images", "haproxy", "redis-server", "registry", "python", "redis-cli")


def _stand_in(base: Path, made: Path) -> Path:
    """A root file system with a shell, in which every program of ours sleeps."""
    shutil.copy(base, made)
    with tarfile.open(made, "a") as tar:
        for name in _PROGRAMS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.size, entry.mode = len(_SLEEP), 0o755
            tar.addfile(entry, io.BytesIO(_SLEEP))
    return made


@pytest.fixture
def node(lab: Lab, base_image_tar: Path, tmp_path: Path) -> Iterator[SwarmNode]:
    """A Swarm of one node, with stand-ins for all images."""
    started = swarm_node(lab, "swarm")
    try:
        archive = str(_stand_in(base_image_tar, tmp_path / "stand-in.tar"))
        started.docker("import", archive, "cyroid/images:latest")
        started.docker("tag", "cyroid/images:latest", "redis:7")
        started.docker("import", "-c", 'CMD ["registry"]', archive, "registry:2")
        yield started
    finally:
        started.kill()  # with its network and all that it runs; nobody waits for programs that sleep


def _deploy(node: SwarmNode, data: Path) -> str:
    prepare(data)
    client = {"DOCKER_HOST": node.url, "DOCKER_CONFIG": str(data / "client")}
    told = {"CYROID_DATA_DIR": str(data), "STACK_ENGINE_SOCKET": str(node.socket), "STACK_ENGINE_ROOT": str(node.root)}
    words = ["stack", "deploy", "--resolve-image", "never", "-c", str(FILE), STACK]
    return run([need("docker", "docker.io"), *words], env={**os.environ, **client, **told})


def test_a_swarm_runs_the_roles(node: SwarmNode, tmp_path: Path) -> None:
    """Where they belong, with no more rights than the file gives, and with no port of a node."""
    ident = node.make_swarm()
    said = _deploy(node, tmp_path / "data")
    assert "ignoring" not in said.lower()
    (store, host) = (f"--label-add=cyroid.{name}=true" for name in ("store", "host"))
    node.docker("node", "update", store, host, ident)

    def running() -> set[str]:
        names = node.docker("ps", "--format", "{{.Names}}").split()
        return {name.removeprefix(f"{STACK}_").partition(".")[0] for name in names}

    assert poll(lambda: running() == set(SERVICES), seconds=90, every=0.3), (
        node.docker("stack", "ps", "--no-trunc", STACK),
        running(),
    )
    for ident_of in node.docker("ps", "-q").split():
        (found,) = json.loads(node.docker("inspect", ident_of))
        name = found["Name"].removeprefix(f"/{STACK}_").partition(".")[0]
        asked, given = SERVICES[name], found["HostConfig"]
        assert given["ReadonlyRootfs"], name
        assert given["CapDrop"] == ["ALL"], name
        assert {one.removeprefix("CAP_") for one in given["CapAdd"] or ()} == set(asked.get("cap_add", ())), name
        assert not given["Privileged"], name
        assert given["PidsLimit"] == asked["deploy"]["resources"]["limits"]["pids"], name
        assert not given["PortBindings"], name
        assert not any(found["NetworkSettings"]["Ports"].values()), name
    pusher = node.docker("ps", "-q", "--filter", f"name={STACK}_tar-server").strip()
    seen = node.docker(
        "exec", pusher, "sh", "-c", "stat -c '%u %a' /run/cyroid/redis_url; hostname; echo $CYROID_TAR_URL"
    )
    assert seen.split() == ["10001", "400", f"tar-{node_id(node)}", f"http://tar-{node_id(node)}:7070"]


def node_id(node: SwarmNode) -> str:
    """The id of this node in its Swarm."""
    return node.docker("info", "--format", "{{.Swarm.NodeID}}").strip()
