"""An archive on its way to an engine, against the engine's fake."""

import json

import pytest
import zstandard

from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.core.archives.entry_rules import ArchiveLimits
from services.core.images.manifests import sha256
from services.errors import BadArchive, CyroidError, NoSpace
from services.ingest.archive_flow import Archive, ArchiveFlow
from tests.unit.services.core.archives.tars import config_of, oci, tar
from tests.unit.services.twins import chunks

LAYERS = [tar_of({"f": b"%d" % number}) for number in range(3)]


async def _loaded(engine: MemoryEngine, content: bytes, *, wanted: str | None = None, free: int | None = None) -> None:
    archive = Archive(chunks=chunks(content), origin="x.tar")
    flow = ArchiveFlow(archive, engine, wanted=wanted, limits=ArchiveLimits(), free_bytes=lambda: free)
    async with engine.load(flow.chunks()) as lines:
        async for _ in lines:
            pass
    assert flow.problem is None


def _docker(paths: dict[str, bytes], layers: list[str], *diff_ids: str) -> bytes:
    rows = [{"Config": "c.json", "RepoTags": ["web:1"], "Layers": layers}]
    return tar({**paths, "c.json": config_of(*diff_ids), "manifest.json": json.dumps(rows).encode()})


async def test_an_oci_layout_comes_into_a_classic_store() -> None:
    """Which cannot load one: it is given a `manifest.json`."""
    layer = tar_of({"f": b"x"})
    config = config_of(sha256(layer))
    files = oci("web:1", config=config)
    manifest = next(name for name, content in files.items() if b'"layers"' in content)
    changed = json.loads(files.pop(manifest))
    changed["layers"] = [{"mediaType": "x", "digest": sha256(layer), "size": len(layer)}]
    content = json.dumps(changed).encode()
    files[f"blobs/sha256/{sha256(content)[7:]}"] = content
    files[f"blobs/sha256/{sha256(layer)[7:]}"] = layer
    index = json.loads(files["index.json"])
    index["manifests"][0] |= {"digest": sha256(content), "size": len(content)}
    files["index.json"] = json.dumps(index).encode()
    for store in ("classic", "containerd"):
        engine = MemoryEngine(store="classic" if store == "classic" else "containerd")
        await _loaded(engine, tar(files), wanted="docker.io/shop/web:2")
        (image,) = await engine.images()
        assert (image.references, image.diff_ids) == (("docker.io/shop/web:2",), (sha256(layer),))


async def test_layers_left_out_need_an_engine_that_has_them() -> None:
    """In that order, on a classic store."""
    diff_ids = [sha256(layer) for layer in LAYERS]
    content = _docker({"x.tar": LAYERS[2]}, ["", "", "/x.tar"], *diff_ids)
    engine = MemoryEngine()
    with pytest.raises(CyroidError):
        await _loaded(engine, content)
    assert await engine.images() == []
    engine.add_image("base:1", LAYERS[:2])
    await _loaded(engine, content)
    image = await engine.inspect("web:1")
    assert image is not None
    assert list(image.diff_ids) == diff_ids


@pytest.mark.parametrize(
    ("engine", "content", "reason"),
    [
        (MemoryEngine(), _docker({}, [""], "sha256:1"), "the host's engine does not have"),
        (MemoryEngine(store="containerd"), _docker({}, [""], "sha256:1"), "an engine on the containerd store cannot"),
        (
            MemoryEngine(version="20.10.24"),
            _docker({"l": zstandard.compress(LAYERS[0])}, ["l"], sha256(LAYERS[0])),
            r"packed by zstd, which engine 20\.10\.24 cannot read",
        ),
    ],
)
async def test_what_an_engine_cannot_load_is_refused_with_the_reason(
    engine: MemoryEngine, content: bytes, reason: str
) -> None:
    """Before it has the end of the archive."""
    archive = Archive(chunks=chunks(content), origin="x.tar")
    flow = ArchiveFlow(archive, engine, wanted=None, limits=ArchiveLimits(), free_bytes=lambda: None)
    with pytest.raises(BadArchive, match=reason):
        async for _ in flow.chunks():
            pass
    assert isinstance(flow.problem, BadArchive)


async def test_more_than_the_disk_has_room_for_is_refused_by_its_headers() -> None:
    """Before it is full."""
    content = _docker({"l": tar({"disk": bytes(100_000)})}, ["l"], "sha256:1")
    archive = Archive(chunks=chunks(content[:2048]), origin="x.tar")
    flow = ArchiveFlow(archive, MemoryEngine(), wanted=None, limits=ArchiveLimits(), free_bytes=lambda: 99_000)
    with pytest.raises(NoSpace, match=r"takes more than 100512 bytes when it is unpacked, .* has 99000 left"):
        async for _ in flow.chunks():
            pass
