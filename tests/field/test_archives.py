"""Archives of other tools, imported by name into engines of every kind; and those that are refused, with the reason."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from services.core.images.manifests import sha256
from services.errors import BadArchive, BadInput
from tests.field.archive_refusals import REFUSALS, Refusal
from tests.field.archive_writers import (
    WRITERS,
    TarWriter,
    ToImage,
    Writer,
    crane,
    docker_save_20,
    listing,
    null_lists,
    skopeo_oci,
)
from tests.field.conftest import Host, content_of
from tests.field.tools import Tools
from tests.images import tar_of

pytestmark = pytest.mark.real


def _image(unique: str) -> ToImage:
    """Three layers, of which the first comes again."""
    first, second = tar_of({"t/first": f"first {unique}".encode() * 500}), tar_of({"t/second": b"second" * 5000})
    return ToImage(f"field-{unique}:1", [first, second, first])


def test_every_case_names_its_source() -> None:
    """Project and number of a public report, and each case once."""
    rows: list[Writer | Refusal] = [*WRITERS, *REFUSALS]
    for row in rows:
        assert row.sources
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", source) for source in row.sources)
        assert row.write.__doc__
    assert len({row.write for row in rows}) == len(rows)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.write.__name__)
async def test_an_archive_as_a_tool_writes_it(host: Host, writer: Writer, unique: str) -> None:
    """Imported under its own name, with the layers that it has, and the files in them."""
    image = _image(unique)
    (found,) = await host.imports(writer.write(image))
    assert found.references == (f"docker.io/library/{image.name}",)
    if writer.write is null_lists:
        assert found.diff_ids == ()
        return
    assert found.diff_ids == tuple(image.diff_ids)
    assert content_of(host.server, image.name, "t/first") == f"first {unique}".encode() * 500


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.write.__name__)
async def test_an_archive_that_is_refused(old_host: Host, refusal: Refusal, unique: str) -> None:
    """With its reason, and the engine is as it was."""
    before = await old_host.ids()
    with pytest.raises(BadInput, match=refusal.reason):
        await old_host.imports(refusal.write(_image(unique)))
    assert await old_host.ids() == before


async def test_refused_archives_leave_containerds_store_as_it_was(containerd_host: Host, unique: str) -> None:
    """All of them, each with its reason."""
    before = await containerd_host.ids()
    for refusal in REFUSALS:
        with pytest.raises(BadInput, match=refusal.reason):
            await containerd_host.imports(refusal.write(_image(unique)))
    assert await containerd_host.ids() == before


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.write.__name__)
async def test_a_name_does_not_help_what_holds_no_image(old_host: Host, refusal: Refusal, unique: str) -> None:
    """The reason stays the same with --as, so that no advice leads in a circle; a nameless image gets the name."""
    archive = refusal.write(_image(unique))
    if "--as" in refusal.reason:
        (image,) = await old_host.imports(archive, name=f"named-{unique}:1")
        assert image.references == (f"docker.io/library/named-{unique}:1",)
    else:
        with pytest.raises(BadArchive, match=refusal.reason):
            await old_host.imports(archive, name=f"named-{unique}:1")


async def test_another_name_is_the_only_one(host: Host, unique: str) -> None:
    """Whatever the archive calls its image, however often; a name that was there keeps its image."""
    image, own = _image(unique), f"docker.io/library/own-{unique}:1"
    (mine,) = await host.imports(skopeo_oci(ToImage(f"own-{unique}:1", [tar_of({"t/mine": unique.encode()})])))
    tar = TarWriter().file("c.json", image.config)
    for number, layer in enumerate(image.layers):
        tar.file(f"{number}.tar", layer)
    names = [f"own-{unique}:1", f"second-{unique}:1"]
    archive = tar.file("manifest.json", listing("c.json", names, ["0.tar", "1.tar", "2.tar"])).bytes()
    (found,) = await host.imports(archive, name=f"shop/web-{unique}:9")
    assert found.diff_ids == tuple(image.diff_ids)
    assert await host.engine.inspect(own) == mine
    assert await host.engine.inspect(f"docker.io/library/second-{unique}:1") is None


async def test_layers_that_are_left_out_and_there(old_host: Host, unique: str) -> None:
    """As Cloud Native Buildpacks hand an application to an engine that has the base image."""
    image = _image(unique)
    base = ToImage(f"base-{unique}:1", image.layers[:2])
    await old_host.imports(crane(base))
    tar = TarWriter().file("/c.json", image.config).file("/x.tar", image.layers[2])
    archive = tar.file("manifest.json", listing("/c.json", [image.name], ["", "", "/x.tar"])).bytes()
    (found,) = await old_host.imports(archive)
    assert found.diff_ids == tuple(image.diff_ids)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip and more": lambda content: gzip.compress(content) + b"not a member",
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
    "zstd 27": lambda content: _zstd(content, "--long=27"),
}


def _zstd(content: bytes, *options: str) -> bytes:
    command = ["zstd", "--quiet", "--ultra", *options, "--stdout"]
    return subprocess.run(command, input=content, check=True, capture_output=True, timeout=60).stdout


@pytest.mark.parametrize("packing", PACKINGS)
async def test_every_packing(old_host: Host, packing: str, unique: str) -> None:
    """What the check takes off, old engines need not know."""
    image = _image(unique)
    (found,) = await old_host.imports(PACKINGS[packing](docker_save_20(image)))
    assert found.diff_ids == tuple(image.diff_ids)


async def test_a_window_that_is_too_large_says_so(old_host: Host, unique: str) -> None:
    """zstd's `--long=30` would take a gibibyte of memory."""
    with pytest.raises(BadArchive, match=r"its zstd window is too large: .* --long=27"):
        await old_host.imports(_zstd(docker_save_20(_image(unique)), "--long=30"))


async def test_zstd_layers_need_a_newer_engine(host: Host, unique: str) -> None:
    """Engine 20.10 cannot read them, which is said; the others import them."""
    layer = tar_of({"t/z": unique.encode() * 1000})
    image = ToImage(f"zstd-{unique}:1", [layer])
    tar = TarWriter().file("c.json", image.config).file("0.tar.zst", zstandard.compress(layer))
    archive = tar.file("manifest.json", listing("c.json", [image.name], ["0.tar.zst"])).bytes()
    if host.server.version().startswith("20."):
        with pytest.raises(BadArchive, match=r"packed by zstd, which engine 20\.10"):
            await host.imports(archive)
    else:
        (found,) = await host.imports(archive)
        assert found.diff_ids == (sha256(layer),)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_podman_buildah_and_skopeo_of_this_machine(
    host: Host, tools: Tools, tmp_path: Path, unique: str, form: str
) -> None:
    """Each makes an archive of an image that it built or copied; each is imported under the name that it was given."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "content").write_text(unique)
    podman, buildah, skopeo = (tmp_path / f"{tool}.tar" for tool in ("podman", "buildah", "skopeo"))
    tools.built_by_podman(f"localhost/podman-{unique}:1", files)
    tools.run("podman", "save", "--quiet", f"--format={form}", "--output", str(podman), f"localhost/podman-{unique}:1")
    tools.built_by_buildah(f"localhost/buildah-{unique}:1", files)
    target = f"{form}:{buildah}:registry.test/buildah-{unique}:1"
    tools.run("buildah", "push", "--quiet", f"localhost/buildah-{unique}:1", target)
    tools.copy(f"{form}:{podman}", f"{form}:{skopeo}:docker.io/field/skopeo-{unique}:2")
    for archive, name in (
        (podman, f"localhost/podman-{unique}:1"),
        (buildah, f"registry.test/buildah-{unique}:1"),
        (skopeo, f"docker.io/field/skopeo-{unique}:2"),
    ):
        found = await host.imports(archive.read_bytes())
        assert any(name in image.references for image in found)
        assert content_of(host.server, name, "t/content") == unique.encode()


async def test_several_images_of_podman_in_one_archive(
    old_host: Host, tools: Tools, tmp_path: Path, unique: str
) -> None:
    """`podman save --multi-image-archive`: each under its name."""
    files, archive = tmp_path / "files", tmp_path / "both.tar"
    files.mkdir()
    (files / "content").write_text(unique)
    names = [f"localhost/one-{unique}:1", f"localhost/two-{unique}:1"]
    tools.built_by_podman(names[0], files)
    tools.built_by_buildah(names[1], files)
    tools.run("podman", "save", "--quiet", "--multi-image-archive", "--output", str(archive), *names)
    images = await old_host.imports(archive.read_bytes())
    assert {image.references for image in images} == {(name,) for name in names}
    with pytest.raises(BadInput, match="holds 2 images, so --as cannot name it"):
        await old_host.imports(archive.read_bytes(), name=f"x-{unique}:1")
