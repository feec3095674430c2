"""A registry on object storage (S3), in two replicas: push, deployment, deletion and figures by the API, who collects,
and what becomes of uploads, pushes and pulls when one replica gives way to the other.

Operators of registries on S3 cannot collect beside a running registry (distribution 461, 2367); the server here is
SeaweedFS, which the registry's own S3 driver works with. Both replicas have the configuration that is shipped.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.machine.polling import poll
from events.messages import DeploymentSucceeded, ImagePushed
from tests.images import tar_of
from tests.laboratory import EngineServer, Lab, ObjectStorage, RedisServer, RegistryServer, System

pytestmark = pytest.mark.real

LAYER_BYTES = 6_000_000
"""More than one part of an upload has (5 MiB), so that the driver's multipart copies are met."""


@dataclass(frozen=True, slots=True)
class Site:
    """A running system whose registry's content is in object storage."""

    system: System
    storage: ObjectStorage
    replicas: tuple[RegistryServer, RegistryServer]
    folder: Path
    name: str

    def image(self, name: str, layer_bytes: int = LAYER_BYTES) -> str:
        """An image on the host's engine, pushed; its manifest's digest."""
        archive = self.folder / "root.tar"
        archive.write_bytes(tar_of({"said": name.encode(), "bulk": os.urandom(layer_bytes)}))
        self.system.host.docker("import", str(archive), name)
        with self.system.logbook() as book:
            mark = book.mark()
            done = self.system.cli("images", "push", name)
            assert done.status == 0, done.talk
            pushed = book.wait(ImagePushed, mark, lambda one: one.reference == f"docker.io/{name}")
        assert pushed.sent_bytes > LAYER_BYTES
        return pushed.manifest_digest


@pytest.fixture(scope="module")
def site(
    lab: Lab,
    redis_server: RedisServer,
    host_engine_server: EngineServer,
    engine_servers: Callable[[str], EngineServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Services and one agent, over two replicas of a registry of its own behind one address."""
    name, folder = f"s3-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("s3")
    storage = lab.object_storage(name)
    replicas = lab.registry(f"{name}-one", s3=storage), lab.registry(f"{name}-two", s3=storage)
    front = lab.registry_front(*replicas, f"{name}-front")
    place = {"registry_url": front.url, "registry_address": front.address, "registry_storage": ""}
    system = System(
        lab=lab,
        redis=redis_server,
        registry=replicas[0],
        host=host_engine_server,
        ranges={"r1": engine_servers("machine")},
        prefix=name,
        settings={**place, "collect_by_api": True, "spool_folder": folder / "spool"},
    )
    servers = [system.services(name=f"services-{name}"), system.agent("r1"), front, *replicas, storage]
    yield Site(system, storage, replicas, folder, name)
    for server in servers:
        server.stop()


def test_a_registry_on_object_storage_is_served_and_says_who_collects(site: Site) -> None:
    """What a folder is not needed for works; a collection is refused with what to do, and that does it."""
    kept, gone = f"{site.name}/kept:1", f"{site.name}/gone:1"
    digests = {name: site.image(name) for name in (kept, gone)}
    with site.system.logbook() as book:
        mark = book.mark()
        assert site.system.cli("deploy", "r1", kept, "--no-wait").status == 0
        ended = book.wait(DeploymentSucceeded, mark, seconds=90)
    assert [(image.how, image.sent_bytes > LAYER_BYTES) for image in ended.images] == [("pulled", True)]

    planned = site.system.cli("images", "rm", gone, "--dry-run")
    (plan,) = planned.data["items"]
    assert plan["manifest_digest"] == digests[gone]
    assert plan["freed_later_bytes"] > LAYER_BYTES
    refused = site.system.cli("images", "rm", kept)
    assert refused.status != 0
    assert "range r1" in refused.talk
    assert site.system.cli("images", "rm", gone).status == 0
    assert site.system.cli("registry", "collect", "--dry-run").status == 0
    figures = site.system.cli("registry", "figures").data
    assert (figures["by_api"], figures["tags"]) == (True, 1)
    assert LAYER_BYTES < figures["stored_bytes"] < 2 * LAYER_BYTES

    collected = site.system.cli("registry", "collect")
    assert collected.status != 0
    assert "garbage-collect" in collected.talk
    before = site.storage.objects()
    for replica in site.replicas:
        replica.stop()
    one = site.replicas[0]
    command = [one.command()[0], "garbage-collect", "--delete-untagged", str(one.configuration)]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=one.environment())
    for replica in site.replicas:
        replica.start()
    assert poll(lambda: site.system.cli("registry", "figures").status == 0, seconds=60)
    assert site.storage.objects() < before
    assert site.system.cli("registry", "collect", "--dry-run").status == 0
    assert site.system.cli("registry", "figures").data["stored_bytes"] == figures["stored_bytes"]
    site.system.ranges["r1"].docker("rmi", kept)
    site.system.host.docker("rmi", kept, gone)


def test_an_upload_that_began_on_one_replica_goes_on_at_the_other(site: Site) -> None:
    """What each has received is in the storage, and its signature is good for both; another secret's is not."""
    one, two = (replica.address for replica in site.replicas)
    first, second = os.urandom(LAYER_BYTES), os.urandom(1_000_000)
    digest = f"sha256:{hashlib.sha256(first + second).hexdigest()}"
    status, place, _ = _ask(one, "POST", f"/v2/{site.name}/by-hand/blobs/uploads/")
    assert status == 202
    status, place, _ = _ask(two, "PATCH", place, first)
    assert status == 202
    status, place, _ = _ask(one, "PATCH", place, second, start=len(first))
    assert status == 202
    status, _, _ = _ask(two, "PUT", f"{place}&digest={digest}")
    assert status == 201
    for address in (one, two):
        status, _, content = _ask(address, "GET", f"/v2/{site.name}/by-hand/blobs/{digest}")
        assert (status, content == first + second) == (200, True), "with redirects it would be 307"

    stranger = site.system.lab.registry(f"{site.name}-stranger", s3=site.storage, secret="another")
    _, place, _ = _ask(one, "POST", f"/v2/{site.name}/by-hand/blobs/uploads/")
    status, _, said = _ask(stranger.address, "PATCH", place, second)
    stranger.stop()
    assert (status, b"BLOB_UPLOAD_INVALID" in said) == (404, True) or status == 400, said


def _ask(address: str, method: str, place: str, body: bytes = b"", *, start: int = 0) -> tuple[int, str, bytes]:
    """Status, where an upload goes on, and content."""
    headers = {"Content-Type": "application/octet-stream"}
    if method == "PATCH":
        headers["Content-Range"] = f"{start}-{start + len(body) - 1}"
    parts = urlsplit(place)
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Location", ""), answer.read()
    finally:
        connection.close()


def test_a_replica_that_is_killed_ends_neither_a_push_nor_a_pull(site: Site) -> None:
    """The push is made again where it broke off, and the range gets the image."""
    one, two = site.replicas
    image, layer_bytes = f"{site.name}/large:1", 8 * LAYER_BYTES
    with ThreadPoolExecutor(1) as beside:
        began = two.log.stat().st_size
        push = beside.submit(site.image, image, layer_bytes)
        assert poll(lambda: any("/uploads/" in one.path for one in two.requests(began)) or push.done(), seconds=60)
        assert not push.done()
        two.kill()
        assert push.result(timeout=120).startswith("sha256:")
        two.start()
        with site.system.logbook() as book:
            mark, began = book.mark(), one.log.stat().st_size
            assert site.system.cli("deploy", "r1", image, "--no-wait").status == 0
            assert poll(lambda: any(f"{site.name}/large" in one.path for one in one.requests(began)), seconds=60)
            one.kill()
            ended = book.wait(DeploymentSucceeded, mark, seconds=120)
    assert [found.reference for found in ended.images] == [f"docker.io/{image}"]
    one.start()
    site.system.ranges["r1"].docker("rmi", image)
    site.system.host.docker("rmi", image)
