"""Importing into a real engine, and every kind of archive that is none."""

import gzip
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from services.adapters.files import file_chunks
from services.content.decompression import unpacked
from services.errors import BadArchive, BadInput, NotFound
from services.ingest.archive_flow import Archive
from services.ingest.files import import_many
from tests.images import tar_of
from tests.integration.services.conftest import Host
from tests.laboratory import EngineServer, RegistryServer


def _archive(path: Path, reference: str | None = None) -> Archive:
    return Archive(chunks=unpacked(file_chunks(path), path.name), origin=path.name, reference=reference)


@pytest.fixture
def saved(host: Host, context: Path, tmp_path: Path, unique: str) -> Path:
    """A `docker save` of an image that the engine does not have (any more)."""
    name = f"saved-{unique}:1"
    host.docker("build", "-q", "-t", name, str(context))
    path = tmp_path / "saved.tar"
    host.docker("save", "-o", str(path), name)
    host.docker("rmi", name)
    return path


async def test_an_archive_becomes_an_image_and_an_event(host: Host, saved: Path, unique: str) -> None:
    """Named as in the archive; packed archives work as well."""
    (message,) = await (await host.resources.importer()).import_archive(_archive(saved))
    assert message.reference == f"docker.io/library/saved-{unique}:1"
    assert message.image_id == host.image_id(f"saved-{unique}:1")
    host.docker("rmi", f"saved-{unique}:1")
    packed = saved.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(saved.read_bytes(), 1))
    (again,) = await (await host.resources.importer()).import_archive(_archive(packed))
    assert again.image_id == message.image_id
    assert await host.said() == [message, again]


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
async def test_an_archive_cut_off_leaves_nothing(host: Host, saved: Path, unique: str, part: float) -> None:
    """No tag, no image, no event; the message says after how many bytes."""
    before = host.all_images()
    content = saved.read_bytes().rstrip(b"\0")
    saved.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BadArchive, match="cut off after"):
        await (await host.resources.importer()).import_archive(_archive(saved))
    assert host.all_images() == before
    assert await host.said() == []


async def test_an_archive_cut_off_in_its_packing_leaves_nothing(host: Host, saved: Path) -> None:
    """The gzip end is missing though much of the tar came through."""
    before = host.all_images()
    packed = gzip.compress(saved.read_bytes(), 1)
    saved.write_bytes(packed[: len(packed) - 100])
    with pytest.raises(BadArchive, match="cut off"):
        await (await host.resources.importer()).import_archive(_archive(saved))
    assert host.all_images() == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"just text\n" * 200, "is no tar archive"),
        (tar_of({"etc/hostname": b"x"}), "a file system"),
        (tar_of({"notes/readme.md": b"x"}), "holds neither manifest.json nor index.json"),
        (
            tar_of({"manifest.json": b'[{"Config":"a.json","RepoTags":["a:1"],"Layers":["l.tar"]}]'}),
            "a.json is missing",
        ),
        (
            tar_of({"manifest.json": b'[{"Config":"a.json","RepoTags":["a:1"],"Layers":[]}]', "a.json": b"{}"}),
            "its config a.json cannot be read",
        ),
    ],
    ids=["empty", "text", "file system", "other tar", "incomplete", "no config"],
)
async def test_what_is_no_image_leaves_nothing(host: Host, tmp_path: Path, content: bytes, reason: str) -> None:
    """One clear error for each, and the engine is as it was."""
    before = host.all_images()
    path = tmp_path / "bad.tar"
    path.write_bytes(content)
    with pytest.raises(BadArchive, match=reason):
        await (await host.resources.importer()).import_archive(_archive(path))
    assert host.all_images() == before
    assert await host.said() == []


async def test_an_image_without_a_name_needs_one(host: Host, context: Path, tmp_path: Path, unique: str) -> None:
    """Without --as it is refused and taken away again; with it, it is there under that name."""
    image_id = host.docker("build", "-q", str(context))
    path = tmp_path / "unnamed.tar"
    host.docker("save", "-o", str(path), image_id)
    host.docker("rmi", image_id)
    before = host.all_images()
    with pytest.raises(BadInput, match="has no name; give it one with --as"):
        await (await host.resources.importer()).import_archive(_archive(path))
    assert host.all_images() == before
    (message,) = await (await host.resources.importer()).import_archive(_archive(path, f"named-{unique}:1"))
    assert message.image_id == image_id == host.image_id(f"named-{unique}:1")


async def test_an_archive_whose_second_image_is_broken_leaves_nothing_of_the_first(
    host: Host, saved: Path, context: Path, tmp_path: Path, unique: str
) -> None:
    """The first one's new name is gone, the one that it took over means again what it meant."""
    (context / "content").write_text(f"second {unique}")
    broken, taken, new = (f"{word}-{unique}:1" for word in ("broken", "taken", "new"))
    host.docker("build", "-q", "-t", broken, str(context))
    second = tmp_path / "second.tar"
    host.docker("save", "-o", str(second), broken)
    (context / "content").write_text(f"mine {unique}")
    mine = host.docker("build", "-q", "-t", taken, str(context))
    host.docker("rmi", broken)
    contents, listing = _contents(saved), []
    for number, (path, names) in enumerate([(saved, [taken, new]), (second, [broken])]):
        (entry,) = json.loads(_contents(path)["manifest.json"])
        contents |= _contents(path)
        if number:
            top = entry["Layers"][-1]
            contents[top] = contents[top].replace(f"second {unique}".encode(), f"Second {unique}".encode())
        listing.append(entry | {"RepoTags": names})
    contents["manifest.json"] = json.dumps(listing).encode()
    path = tmp_path / "both.tar"
    path.write_bytes(tar_of({name: content for name, content in contents.items() if name in _named(listing)}))
    before = host.all_images()
    with pytest.raises(BadArchive, match=r"engine at .* says"):
        await (await host.resources.importer()).import_archive(_archive(path))
    assert (host.image_id(taken), host.image_id(new)) == (mine, "")
    assert host.all_images() == before
    with pytest.raises(BadInput, match="holds 2 images, so --as"):
        await (await host.resources.importer()).import_archive(_archive(path, f"x-{unique}:1"))
    assert host.all_images() == before
    assert await host.said() == []


def _contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = {info.name: archive.extractfile(info) for info in archive.getmembers() if info.isreg()}
        return {name: file.read() for name, file in files.items() if file is not None}


def _named(listing: list[dict[str, Any]]) -> set[str]:
    """The files of these images, without the OCI layout that lies beside."""
    return {"manifest.json", *(path for entry in listing for path in (entry["Config"], *entry["Layers"]))}


async def test_another_name_takes_the_place_of_the_archives_own(host: Host, saved: Path, unique: str) -> None:
    """Only the announced name is there afterwards."""
    (message,) = await (await host.resources.importer()).import_archive(_archive(saved, f"other-{unique}:1"))
    assert message.image_id == host.image_id(f"other-{unique}:1")
    assert host.image_id(f"saved-{unique}:1") == ""


async def test_an_unnamed_archive_of_a_named_image_takes_nothing_away(
    host: Host, context: Path, tmp_path: Path, unique: str
) -> None:
    """What was there before under a name stays."""
    name = f"kept-{unique}:1"
    host.docker("build", "-q", "-t", name, str(context))
    path = tmp_path / "unnamed.tar"
    host.docker("save", "-o", str(path), host.image_id(name))
    with pytest.raises(BadInput, match="has no name"):
        await (await host.resources.importer()).import_archive(_archive(path))
    assert host.image_id(name)


async def test_a_list_of_both_is_done_item_by_item(
    host: Host, saved: Path, registry_server: RegistryServer, unique: str
) -> None:
    """An archive, a reference that is pulled, one that does not exist: each has its own result."""
    pulled = f"{registry_server.address}/pulled-{unique}:1"
    host.docker("tag", "base-of-tests:1", pulled)
    host.docker("push", "-q", pulled)
    host.docker("rmi", pulled)
    missing = f"{registry_server.address}/missing-{unique}:1"
    results = await import_many(
        [_archive(saved), pulled, missing], importer=await host.resources.importer(), limit_bytes=1 << 30
    )
    assert [len(result.images) for result in results] == [1, 1, 0]
    assert isinstance(results[2].error, NotFound)
    assert [message.reference for result in results for message in result.images] == [
        f"docker.io/library/saved-{unique}:1",
        pulled,
    ]
    assert host.image_id(pulled)


async def test_an_archive_of_a_newer_layout_is_imported(
    host: Host, saved: Path, tmp_path: Path, unique: str, host_engine_server: EngineServer
) -> None:
    """The OCI layout that `docker save` writes since engine 25 has manifest.json too, in another order."""
    plain = _contents(saved)
    reordered = tmp_path / "reordered.tar"
    reordered.write_bytes(tar_of({name: plain[name] for name in sorted(plain, reverse=True)}))
    (message,) = await (await host.resources.importer()).import_archive(_archive(reordered))
    assert message.image_id == host.image_id(f"saved-{unique}:1")
    assert subprocess.run(["docker", "-H", host_engine_server.url, "info"], check=True, capture_output=True).stdout
