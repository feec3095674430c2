"""`transfer_image_to_dind` between real engines: each way, and the next one when a way fails."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.core.images.manifests import OCI_INDEX, OCI_MANIFEST
from services.errors import BadReference, EngineUnavailable, NotAnImage, NotFound
from services.settings import Settings
from services.transfer import Transferred, transfer_image_to_dind
from tests.integration.agent.site import MEGABYTE, Site
from tests.integration.engines import build
from tests.laboratory import EngineServer, RedisServer, RegistryServer

pytestmark = pytest.mark.real


class Mover:
    """Calls the function as other services do; remembers the progress."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self.told: list[dict[str, Any]] = []

    async def move(self, image: str, url: str | None = None) -> Transferred:
        self.told.clear()
        return await transfer_image_to_dind(
            "range-1", url or self._url, image, self.told.append, settings=self._settings
        )

    @property
    def phases(self) -> list[str]:
        """Phases in order, each once."""
        return list(dict.fromkeys(told["phase"] for told in self.told))


@pytest.fixture
def mover(  # noqa: PLR0917  pytest hands fixtures over by name
    site: Site,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    host_engine_server: EngineServer,
    key_prefix: str,
    tmp_path: Path,
) -> Mover:
    settings = Settings(
        redis_url=redis_server.url,
        key_prefix=key_prefix,
        host_engine_url=host_engine_server.url,
        engine_root=str(host_engine_server.root),
        registry_url=registry_server.url,
        registry_address=registry_server.address,
        spool_folder=str(tmp_path / "direct"),
    )
    return Mover(site.engine_url, settings)


async def test_by_registry_then_present_then_by_thin_tar(
    site: Site, mover: Mover, registry_server: RegistryServer, unique: str
) -> None:
    """Pushed on demand and pulled; nothing the second time; with the registry down only the new layer."""
    one, two = f"{unique}/app:1", f"{unique}/app:2"
    big, new = {"big": os.urandom(5 * MEGABYTE)}, os.urandom(MEGABYTE)
    first = await build(site.host, one, big)
    moved = await mover.move(one)
    assert (moved.how, moved.image_id, moved.layers_total) == ("pulled", first.image_id, 2)
    assert [phase for phase in mover.phases if phase != "extracting"] == ["checking", "sending", "downloading", "done"]
    assert mover.told[-1]["percent"] == 100.0
    again = await mover.move(one)
    assert (again.how, again.received_bytes, again.passed_over) == ("present", 0, ())
    second = await build(site.host, two, big, {"new": new})
    registry_server.stop()
    try:
        moved = await mover.move(two)
    finally:
        registry_server.start()
    assert (moved.how, moved.layers_reused, moved.layers_total) == ("loaded", 2, 3)
    assert [failure.code for failure in moved.passed_over] == ["registry_unavailable"]
    assert MEGABYTE < moved.received_bytes < MEGABYTE + 20_000
    await site.assert_named_alone(f"docker.io/{two}", second.local_id)
    assert site.files(two, ["/data/new"]) == {"/data/new": new}


async def test_what_only_the_registry_has_is_pulled(site: Site, mover: Mover, unique: str) -> None:
    """The host's engine lost it; nobody needs to build it again."""
    name = f"{unique}/app:1"
    image = await build(site.host, name, {"a": b"1"})
    await site.push(name)
    await site.host.untag(name)
    moved = await mover.move(name)
    assert (moved.how, moved.image_id) == ("pulled", image.image_id)


async def test_what_cannot_be_done_is_said(site: Site, mover: Mover, unique: str) -> None:
    """An unknown image, a name that is none, a range that is not there."""
    with pytest.raises(NotFound, match=f"has {unique}/nothing:1"):
        await mover.move(f"{unique}/nothing:1")
    with pytest.raises(BadReference):
        await mover.move("Not A Name")
    name = f"{unique}/app:1"
    await build(site.host, name, {"a": b"1"})
    with pytest.raises(EngineUnavailable, match="cannot talk to the engine"):
        await mover.move(name, "tcp://127.0.0.1:1")


async def test_an_index_in_the_registry_alone_is_the_image_of_the_ranges_platform(
    site: Site, mover: Mover, registry_server: RegistryServer, unique: str
) -> None:
    """Pulled by the manifest that the index names; one for other platforms only says so, and so does an artifact."""
    name, repository = f"test/{unique}:1", f"test/{unique}"
    await build(site.host, name, {"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": unique.encode() * 1000})
    pushed = await site.push(name)
    manifest = await site.registry.manifest(repository, "1")
    assert manifest is not None
    for tag, architecture in (("idx", "amd64"), ("other", "s390x")):
        entry = {**msgspec.to_builtins(manifest[0]), "platform": {"os": "linux", "architecture": architecture}}
        put_document(registry_server, repository, tag, OCI_INDEX, {"schemaVersion": 2, "manifests": [entry]})
    moved = await mover.move(f"{repository}:idx")
    assert (moved.how, moved.image_id) == ("pulled", pushed.image_id)
    found = await site.engine.inspect(f"docker.io/{repository}:idx")
    assert found is not None
    with pytest.raises(NotAnImage, match="linux/s390x, with nothing for linux/amd64"):
        await mover.move(f"{repository}:other")
    config = {**msgspec.to_builtins(manifest[1].body.config), "mediaType": "application/vnd.cncf.helm.config.v1+json"}
    put_document(
        registry_server, repository, "chart", OCI_MANIFEST, {"schemaVersion": 2, "config": config, "layers": []}
    )
    with pytest.raises(NotAnImage, match=r"artifact \(application/vnd\.cncf\.helm"):
        await mover.move(f"{repository}:chart")


def put_document(server: RegistryServer, repository: str, tag: str, media_type: str, content: dict[str, Any]) -> None:
    """A manifest of any kind, as other tools write it."""
    request = urllib.request.Request(
        f"{server.url}/v2/{repository}/manifests/{tag}",
        data=msgspec.json.encode({"mediaType": media_type, **content}),
        headers={"Content-Type": media_type},
        method="PUT",
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
