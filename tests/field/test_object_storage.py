"""A registry on object storage (S3): push, deployment, deletion and figures by the API, and who collects.

Operators of registries on S3 cannot collect beside a running registry (distribution 461, 2367); the server here is
SeaweedFS, which the registry's own S3 driver works with.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    registry: RegistryServer
    folder: Path

    def image(self, name: str) -> str:
        """An image on the host's engine, pushed; its manifest's digest."""
        archive = self.folder / "root.tar"
        archive.write_bytes(tar_of({"said": name.encode(), "bulk": os.urandom(LAYER_BYTES)}))
        self.system.host.docker("import", str(archive), name)
        with self.system.logbook() as book:
            mark = book.mark()
            done = self.system.cli("images", "push", name)
            assert done.status == 0, done.talk
            pushed = book.wait(ImagePushed, mark, lambda one: one.reference == f"docker.io/{name}")
        assert pushed.sent_bytes > LAYER_BYTES
        return pushed.manifest_digest


@pytest.fixture
def site(  # noqa: PLR0917  pytest hands fixtures over by name
    lab: Lab,
    redis_server: RedisServer,
    host_engine_server: EngineServer,
    engine_servers: Callable[[str], EngineServer],
    unique: str,
    tmp_path: Path,
) -> Iterator[Site]:
    """Services and one agent, over a registry of its own."""
    storage = lab.object_storage(f"s3-{unique}")
    registry = lab.registry(f"s3-registry-{unique}", s3=storage)
    system = System(
        lab=lab,
        redis=redis_server,
        registry=registry,
        host=host_engine_server,
        ranges={"r1": engine_servers("machine")},
        prefix=f"s3-{unique}",
        settings={"registry_storage": "", "collect_by_api": True, "spool_folder": tmp_path / "spool"},
    )
    servers = [system.services(name=f"services-{unique}"), system.agent("r1"), registry, storage]
    yield Site(system, storage, registry, tmp_path)
    for server in servers:
        server.stop()


def test_a_registry_on_object_storage_is_served_and_says_who_collects(site: Site, unique: str) -> None:
    """What a folder is not needed for works; a collection is refused with what to do, and that does it."""
    kept, gone = f"{unique}/kept:1", f"{unique}/gone:1"
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
    site.registry.stop()
    command = [
        site.registry.command()[0],
        "garbage-collect",
        "--delete-untagged",
        str(site.registry.folder / "config.yml"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=site.registry.environment())
    site.registry.start()
    assert site.storage.objects() < before
    assert site.system.cli("registry", "collect", "--dry-run").status == 0
    assert site.system.cli("registry", "figures").data["stored_bytes"] == figures["stored_bytes"]
    site.system.ranges["r1"].docker("rmi", kept)
    site.system.host.docker("rmi", kept, gone)
