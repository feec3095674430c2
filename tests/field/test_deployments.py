"""Deployments of what users keep in registries and on hosts, on a classic store and on containerd's.

Learnt from this project's own trials (cases `index-only`, and one image under fifty names).
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.core.images.manifests import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, sha256
from tests.field.conftest import content_of
from tests.images import config_of, tar_of
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, System, free_port

pytestmark = pytest.mark.real

STORES = {"classic": "28.5", "containerd": "28.5-containerd"}
NAMES = 50


def _system(
    lab: Lab,
    redis: RedisServer,
    registry: RegistryServer,
    engines: Callable[[str], EngineServer],
    *,
    prefix: str,
    **settings: object,
) -> Iterator[System]:
    """The services, and a range on each store, as processes."""
    system = System(
        lab=lab,
        redis=redis,
        registry=registry,
        host=engines("machine"),
        ranges={f"{prefix}-{store}": engines(kind) for store, kind in STORES.items()},
        prefix=prefix,
        settings={"spool_folder": lab.folder / f"spool-{prefix}", **settings},
    )
    servers = [system.services(name=f"services-{prefix}"), *(system.agent(range_id) for range_id in system.ranges)]
    yield system
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def system(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    engine_servers: Callable[[str], EngineServer],
) -> Iterator[System]:
    yield from _system(lab, redis_server, registry_server, engine_servers, prefix="kept")


@pytest.fixture(scope="module")
def without_registry(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    engine_servers: Callable[[str], EngineServer],
) -> Iterator[System]:
    """Nothing answers where the registry should be."""
    address = f"127.0.0.1:{free_port()}"
    settings = {"registry_url": f"http://{address}", "registry_address": address}
    yield from _system(lab, redis_server, registry_server, engine_servers, prefix="names", **settings)


@dataclass(frozen=True, slots=True)
class Content:
    """What is put into a registry by its own API, as other tools do."""

    url: str
    repository: str

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Upload it; its descriptor."""
        location = self._send("POST", f"{self.url}/v2/{self.repository}/blobs/uploads/", b"", "")
        mark = "&" if "?" in location else "?"
        self._send("PUT", f"{location}{mark}digest={sha256(content)}", content, "application/octet-stream")
        return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}

    def manifest(self, body: Mapping[str, object], tag: str | None = None) -> dict[str, Any]:
        """Put it under its digest, or a tag; its descriptor."""
        content, kind = json.dumps(body).encode(), str(body["mediaType"])
        self._send("PUT", f"{self.url}/v2/{self.repository}/manifests/{tag or sha256(content)}", content, kind)
        return {"mediaType": kind, "digest": sha256(content), "size": len(content)}

    def image(self, unique: str, architecture: str, tag: str | None = None) -> dict[str, Any]:
        """An image of one layer; its descriptor with the platform."""
        layer = tar_of({"t/file": f"{unique} {architecture}".encode()})
        config = self.blob(config_of([sha256(layer)], architecture=architecture), OCI_CONFIG)
        layers = [self.blob(layer, OCI_LAYER)]
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        return self.manifest(body, tag) | {"platform": {"architecture": architecture, "os": "linux"}}

    def index(self, manifests: list[dict[str, Any]], tag: str) -> None:
        self.manifest({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, tag)

    def attestation(self, of: Mapping[str, Any]) -> dict[str, Any]:
        """As BuildKit puts it beside an image: of a platform that is none."""
        statement = self.blob(b'{"_type":"x"}', "application/vnd.in-toto+json")
        config = self.blob(config_of([statement["digest"]], architecture="unknown", os="unknown"), OCI_CONFIG)
        body = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [statement]}
        annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of["digest"]}
        platform = {"architecture": "unknown", "os": "unknown"}
        return self.manifest(body) | {"platform": platform, "annotations": annotations}

    def _send(self, method: str, url: str, content: bytes, media_type: str) -> str:
        request = urllib.request.Request(
            url, content, {"Content-Type": media_type} if media_type else {}, method=method
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.headers.get("Location", ""))


def _fill(content: Content, unique: str) -> None:
    """Tags that no host ever had, each called by what it is."""
    ours, other = content.image(unique, "amd64"), content.image(unique, "s390x")
    attested = content.attestation(ours)
    content.index([other, attested, ours], "index")
    content.index([attested], "attestations")
    content.index([other, attested], "elsewhere")
    chart = content.blob(b'{"name":"chart"}', "application/vnd.cncf.helm.config.v1+json")
    packed = content.blob(unique.encode(), "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    artifact = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": chart, "layers": [packed]}
    content.manifest(artifact, "artifact")
    outside = sha256(f"outside {unique}".encode())
    config = content.blob(config_of([outside]), "application/vnd.docker.container.image.v1+json")
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    layer = {"mediaType": kind, "digest": outside, "size": 9, "urls": ["https://layers.test/1"]}
    foreign = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": [layer]}
    content.manifest(foreign, "foreign")


#: Tag → what its failure says.
REASONS = {
    "attestations": "attestation",
    "elsewhere": "linux/s390x",
    "artifact": "helm",
    "foreign": "has layers elsewhere",
}


@pytest.mark.parametrize("store", STORES)
def test_what_only_the_registry_has_is_deployed_or_refused_with_its_reason(
    system: System, unique: str, store: str
) -> None:
    """An index as the image of the range's platform; whatever is no image for it with one reason, at once."""
    _fill(Content(system.registry.url, f"only/{unique}"), unique)
    range_id = f"kept-{store}"
    names = {tag: f"only/{unique}:{tag}" for tag in ("index", *REASONS)}
    said = system.cli("deploy", range_id, *names.values())
    assert said.status == 5, said.talk
    found = {image["reference"].rpartition(":")[2]: image for image in said.data["images"]}
    assert found["index"]["how"] == "pulled", found["index"]
    assert content_of(system.ranges[range_id], names["index"], "t/file") == f"{unique} amd64".encode()
    for tag, reason in REASONS.items():
        error = found[tag]["error"]
        codes = {"not_an_image"}
        if tag == "elsewhere":  # before the range told its platform, the one image of the index stands for the index
            codes.add("platform_mismatch")
        assert error["code"] in codes
        assert not error.get("retryable", False)
        assert reason in error["message"]
        assert "neither on the host's engine nor in the registry" not in error["message"]


@pytest.mark.parametrize("store", STORES)
def test_fifty_names_of_one_image_come_in_one_archive(
    without_registry: System, unique: str, store: str, tmp_path: Path
) -> None:
    """With the registry down: loaded once, and named forty-nine times."""
    system, range_id = without_registry, f"names-{store}"
    (tmp_path / "files.tar").write_bytes(tar_of({"t/file": f"{unique} {store}".encode() * 1000}))
    names = [f"names/{unique}:{number}" for number in range(NAMES)]
    system.host.docker("import", str(tmp_path / "files.tar"), names[0])
    for name in names[1:]:
        system.host.docker("tag", names[0], name)
    said = system.cli("deploy", range_id, *names)
    assert said.status == 0, said.talk
    ways = [image["how"] for image in said.data["images"]]
    assert (ways.count("loaded"), ways.count("retagged")) == (1, NAMES - 1)
    assert sum(image.get("sent_bytes", 0) > 0 for image in said.data["images"]) == 1
    listed = system.ranges[range_id].docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"names/{unique}")
    assert sorted(listed.split()) == sorted(names)
