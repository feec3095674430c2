"""Build, import and promote over HTTP: streamed to the engine, with a record of each."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientError

from events.envelope import Envelope
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.core.images.blueprints import read_manifest
from services.core.images.ingests import IngestKeys, IngestRecord, written
from services.errors import BadArchive
from services.ingest.jobs import AT_ONCE
from services.ports import Chunks, EngineProgress
from tests.unit.services.api.site import Service
from tests.unit.services.core.archives.test_zip_stream import zipped
from tests.unit.services.twins import STREAMS

TAR = {"Content-Type": "application/x-tar"}
_ARCHIVE = "/api/v1/images/import/archive"
_BUILD = "/api/v1/images/build"


async def saved(*references: str) -> bytes:
    """An archive with these images."""
    other = MemoryEngine()
    for number, reference in enumerate(references):
        other.add_image(reference, [tar_of({"f": b"%d" % number})])
    async with other.save(references) as archive:
        return b"".join([chunk async for chunk in archive])


async def _post(
    service: Service, path: str, data: Any, status: int = 202, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    async with service.client.post(path, data=data, headers={**TAR, **(headers or {})}) as answer:
        assert answer.status == status, await answer.text()
        found: dict[str, Any] = await answer.json()
        if status == 202:
            assert answer.headers["Location"] == f"/api/v1/ingests/{found['id']}"
        return found


async def _envelopes(service: Service) -> list[Envelope]:
    entries = service.world.bus.tail((STREAMS.images,), after="0", follow=False)
    return [entry.envelope async for entry in entries if entry.envelope]


async def _ended(service: Service, ident: str) -> dict[str, Any]:
    while True:
        await service.look()
        found: dict[str, Any] = await service.get(f"/api/v1/ingests/{ident}")
        if "ended_at" in found:
            return found


async def test_an_archive_is_imported(service: Service) -> None:
    """Its images are announced with the choice of push and the record's id; the record says all of it."""
    content = await saved("web:1", "db:2")
    record = await _post(service, f"{_ARCHIVE}?push=ask&origin=a.tar", content)
    found = await _ended(service, record["id"])
    assert (found["state"], found["kind"], found["origin"]) == ("done", "import", "a.tar")
    assert found["received_bytes"] == found["total_bytes"] == len(content)
    names = ["docker.io/library/web:1", "docker.io/library/db:2"]
    assert [image["reference"] for image in found["images"]] == names
    envelopes = await _envelopes(service)
    assert [one.message.reference for one in envelopes] == names  # type: ignore[union-attr]  # images appeared
    assert {(one.message.push, one.correlation_id) for one in envelopes} == {("ask", record["id"])}  # type: ignore[union-attr]
    listed = await service.get("/api/v1/ingests?state=done&q=a.tar")
    assert [(row["id"], row["images"]) for row in listed["items"]] == [(record["id"], 2)]


async def test_a_context_is_built(service: Service) -> None:
    """With its options, packed or not; the log's latest lines are in the record."""
    service.world.engine.add_image("base:1", [tar_of({"base": b"1"})])
    context = gzip.compress(tar_of({"docker/File": b"FROM base:1\nRUN echo $NAME\n"}))
    path = f"{_BUILD}?reference=made:1&dockerfile=docker/File&build_arg=NAME=x%3Dy&push=never"
    found = await _ended(service, (await _post(service, path, context))["id"])
    assert (found["state"], found["reference"]) == ("done", "made:1")
    assert any(line.endswith("RUN echo x=y") for line in found["log"])
    assert await service.world.engine.inspect("made:1") is not None
    failed = await _post(service, f"{_BUILD}?reference=made:2", tar_of({"Dockerfile": b"FROM base:1\nRUN false"}), 400)
    assert failed["code"] == "build_failed"
    assert (await _post(service, f"{_BUILD}?reference=made:2&build_arg=x", b"", 400))["code"] == "bad_input"


async def test_containers_and_images_are_promoted(service: Service) -> None:
    """The end is answered at once where it comes at once, and so is an error."""
    service.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    service.world.engine.add_container("shop", "web:1", {"changed": b"yes"})
    body, _ = await service.post("/api/v1/images/promote", {"reference": "web:2", "container": "shop"})
    assert (body["state"], body["images"][0]["reference"]) == ("done", "docker.io/library/web:2")
    body, _ = await service.post("/api/v1/images/promote", {"reference": "web:3", "image": "web:1", "push": "always"})
    assert body["state"] == "done"
    refused, _ = await service.post("/api/v1/images/promote", {"reference": "web:4", "container": "none"}, 404)
    assert refused["code"] == "not_found"
    await service.post("/api/v1/images/promote", {"reference": "web:4", "container": "a", "image": "b"}, 400)
    await service.post("/api/v1/images/promote", {"reference": "web:4", "image": "web:1", "changes": ["CMD x"]}, 400)


async def test_a_reference_is_pulled_by_the_engine(service: Service) -> None:
    """From a registry that it reaches; what is not there is said."""
    await service.push("far:1", tar_of({"f": b"1"}))
    name = f"{service.world.registry.address}/library/far:1"
    await service.world.engine.untag(name)
    body, _ = await service.post("/api/v1/images/import", {"reference": name, "push": "never"})
    assert (await _ended(service, body["id"]))["state"] == "done"
    await service.post("/api/v1/images/import", {"reference": "Not A Name"}, 400)
    await service.post("/api/v1/images/import", {"reference": f"{service.world.registry.address}/none:1"}, 404)


def _manifest(*images: dict[str, str], **more: Any) -> bytes:
    return json.dumps({"format": "cyroid-blueprint", "version": 1, "images": images, **more}).encode()


async def test_a_blueprint_is_imported(service: Service) -> None:
    """Its archives are checked and named as its manifest says; what else is in the zip is passed over."""
    await service.push("far:1", tar_of({"f": b"1"}))
    far = f"{service.world.registry.address}/library/far:1"
    web, db = await saved("web:1"), gzip.compress(await saved("db:1"))
    manifest = _manifest(
        {"file": "images/web.tar", "sha256": hashlib.sha256(web).hexdigest(), "reference": "shop/web:7"},
        {"file": "images/db.tar.gz"},
        {"reference": far},
        name="shop",
        networks=["lan"],
    )
    content = {"manifest.json": manifest, "readme": b"x", "images/web.tar": web, "images/db.tar.gz": db}
    record = await _post(service, _ARCHIVE, zipped(content), headers={"Content-Type": "application/zip"})
    found = await _ended(service, record["id"])
    assert found["state"] == "done", found
    names = [image["reference"] for image in found["images"]]
    assert names == ["docker.io/shop/web:7", "docker.io/library/db:1", far]


async def test_a_blueprint_that_is_not_as_it_says_is_refused(service: Service) -> None:
    """Other content, a missing archive, a manifest that does not come first, and no manifest of ours."""
    web = await saved("web:1")
    wrong = _manifest({"file": "web.tar", "sha256": "0" * 64})
    for content, why in (
        ({"manifest.json": wrong, "web.tar": web}, "another SHA-256"),
        ({"manifest.json": _manifest({"file": "a.tar"}, {"file": "b.tar"}), "a.tar": web}, "lacks b.tar"),
        ({"web.tar": web, "manifest.json": wrong}, "the first entry"),
        ({"manifest.json": b"{}"}, "not a blueprint's"),
        ({"manifest.json": b" " * 2_000_000}, "more than"),
        ({"manifest.json": wrong, "zeros": bytes(9_000_000)}, "CYROID_IMPORT_LIMIT_BYTES"),
    ):
        refused = await _post(service, _ARCHIVE, zipped(content), 400)
        assert refused["code"] == "bad_archive"
        assert why in refused["detail"]
    assert not service.world.engine.store.names.keys() - {"docker.io/library/web:1"}  # of the second, a.tar was whole
    refused = await _post(service, f"{_ARCHIVE}?reference=x:1", zipped({"manifest.json": wrong}), 400)
    assert refused["code"] == "many_names"


@pytest.mark.parametrize(
    "text",
    [
        _manifest(),
        _manifest({"file": "a"}, {"file": "a"}),
        _manifest({}),
        _manifest({"reference": "Not A Name"}),
        _manifest({"file": "a"}, version=2),
        b"[]",
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(text: bytes) -> None:
    """Before anything is imported."""
    with pytest.raises(BadArchive):
        read_manifest(text, "x.zip")


async def test_bombs_and_rubbish_are_refused(service: Service) -> None:
    """As the import from the command line refuses them; the record has the same error."""
    bomb = gzip.compress(bytes(40_000_000))
    assert (await _post(service, _ARCHIVE, bomb, 400))["code"] == "bad_archive"
    refused = await _post(service, _ARCHIVE, b"", 400)
    assert refused["code"] == "bad_archive"
    context = gzip.compress(tar_of({"Dockerfile": b"FROM base:1", "zeros": bytes(20_000_000)}))
    assert (await _post(service, f"{_BUILD}?reference=x:1", context, 413))["code"] == "too_large"
    await service.look()
    listed = await service.get("/api/v1/ingests?state=failed")
    assert {row["error"]["code"] for row in listed["items"]} == {"bad_archive", "too_large"}


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}, {**TAR, "Content-Encoding": "gzip"}],
)
async def test_an_upload_is_no_form(service: Service, headers: dict[str, str]) -> None:
    """What a page of another site may send without asking is refused, and so is a packing of HTTP's."""
    async with service.client.post(_ARCHIVE, data=b"x", headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (415, "unsupported_media_type")


async def test_a_key_names_one_import(service: Service) -> None:
    """Repeated after it is done, it takes nothing; repeated after it failed, it is done."""
    key = {"Idempotency-Key": "one"}
    await _post(service, _ARCHIVE, b"rubbish" * 100, 400, headers=key)
    content = await saved("web:1")
    first = await _post(service, _ARCHIVE, content, headers=key)
    await _ended(service, first["id"])
    assert (await _post(service, _ARCHIVE, content, headers=key))["id"] == first["id"]
    assert len(await _envelopes(service)) == 1


class _Slow(MemoryEngine):
    """Takes the first piece of an archive, and the rest when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()
        self.taken = 0

    @asynccontextmanager
    async def load(self, archive: Chunks) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        async with super().load(self._slowly(archive)) as lines:
            yield lines

    async def _slowly(self, archive: Chunks) -> AsyncIterator[bytes]:
        async for chunk in archive:
            self.taken += len(chunk)
            yield chunk
            await self.may.wait()


async def test_a_slow_engine_makes_a_slow_upload(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine has not taken stays in the client: beyond sockets' own buffers nothing is kept here.

    The record says meanwhile how far it is, and more than a few at a time are refused.
    """
    slow, sent = _Slow(), 0
    monkeypatch.setattr(service.world.engine, "load", slow.load)
    archive = await saved("web:1")
    piece = tar_of({"zeros": bytes(1 << 20)})[: (1 << 20) + 512]

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield archive[:512]
        while not slow.may.is_set():
            yield piece
            sent += len(piece)

    uploads = [asyncio.create_task(_post(service, _ARCHIVE, endless(), 400)) for _ in range(AT_ONCE)]
    before = -1
    while before != sent or not sent:
        before = sent
        await asyncio.sleep(0.3)
    assert sent < AT_ONCE * 8 * 1024 * 1024
    await service.look()
    listed = await service.get("/api/v1/ingests")
    assert [row["state"] for row in listed["items"]] == ["receiving"] * AT_ONCE
    assert (await _post(service, _ARCHIVE, archive, 503))["code"] == "ingests_busy"
    slow.may.set()
    for upload in uploads:
        assert (await upload)["code"] in {"bad_archive"}


async def test_an_upload_that_breaks_off_leaves_nothing(service: Service) -> None:
    """The record says it; a record whose process is gone says that."""

    async def broken() -> AsyncIterator[bytes]:
        yield (await saved("web:1"))[:3000]
        await asyncio.sleep(0.05)
        raise OSError("the line is cut")

    with pytest.raises((OSError, ClientError)):
        await service.client.post(_ARCHIVE, data=broken(), headers=TAR)
    now = datetime.now(UTC)
    gone = IngestRecord(
        id="gone", kind="build", started_at=now - timedelta(days=1), changed_at=now - timedelta(minutes=1)
    )
    await service.world.bus.commit(written(IngestKeys(STREAMS.prefix), gone))
    while True:
        await service.look()
        listed = await service.get("/api/v1/ingests?state=failed&sort=started")
        if listed["total"] == 2:
            break
    assert [row["error"]["code"] for row in listed["items"]] == ["bad_request", "interrupted"]
    assert not service.world.engine.store.names
