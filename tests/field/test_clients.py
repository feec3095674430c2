"""Clients that others wrote, as users have them: docker-py on engines, a Node.js program on the streams."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from tests.images import tar_of
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, System

pytestmark = pytest.mark.real

RANGE = "field-range"
PUBLISHER = Path(__file__).parent / "publisher.cjs"


@pytest.fixture(scope="module")
def system(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    engine_servers: Callable[[str], EngineServer],
) -> Iterator[System]:
    """The services and one range's agent as processes of their own, with engines that other tests here use as well."""
    system = System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=engine_servers("machine"),
        ranges={RANGE: engine_servers("26.1")},
        prefix="field",
        settings={"spool_folder": lab.folder / "spool-field"},
    )
    servers = [system.services(name="services-field"), system.agent(RANGE)]
    yield system
    for server in servers:
        server.stop()


def _publish(system: System, *arguments: str) -> dict[str, object]:
    """What the Node.js program saw at the end."""
    done = subprocess.run(
        ["node", str(PUBLISHER), system.redis.url, system.prefix, *arguments],
        env={**os.environ, "NODE_PATH": "/usr/share/nodejs"},
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_docker_py_builds_node_asks_and_docker_py_finds_it_in_the_range(system: System, unique: str) -> None:
    """The image is built, said and asked for by foreign clients, and used in the range by one."""
    name = f"field/{unique}:1"
    context = tar_of({"Dockerfile": b"FROM scratch\nCOPY file /t/file\nLABEL by=docker-py\n", "file": unique.encode()})
    host, ranged = (docker.DockerClient(base_url=server.url) for server in (system.host, system.ranges[RANGE]))
    try:
        built, _ = host.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, rm=True)
        ended = _publish(system, name, built.id, RANGE)
        assert ended["type"] == "deployment.succeeded.v1"
        image = ranged.images.get(name)
        assert (image.id, image.tags, image.labels["by"]) == (built.id, [name], "docker-py")
        container = ranged.containers.create(image, "/none")
        chunks, _ = container.get_archive("/t/file")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            file = tar.extractfile("file")
            assert file is not None
            assert file.read() == unique.encode()
        container.remove()
    finally:
        host.close()
        ranged.close()


def test_what_docker_py_saved_is_imported(system: System, unique: str, tmp_path: Path) -> None:
    """A file that it wrote, chunk by chunk, under the name that it was saved with."""
    name, archive = f"field/saved-{unique}:1", tmp_path / "saved.tar"
    context = tar_of({"Dockerfile": b"FROM scratch\nCOPY file /t/file\n", "file": unique.encode()})
    host = docker.DockerClient(base_url=system.host.url)
    try:
        image, _ = host.images.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, rm=True)
        with archive.open("wb") as file:
            for chunk in image.save(named=name):
                file.write(chunk)
        host.images.remove(image.id, force=True)
        said = system.cli("images", "import", str(archive))
        assert said.status == 0, said.talk
        assert host.images.get(name).id == image.id
    finally:
        host.close()
