"""A folder, a file or a tar as a build context."""

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from services.adapters.build_context import open_context
from services.core.closing import closing
from services.errors import BadArchive, BadInput, NotFound


async def _entries(said: Path, dockerfile: str | None = None) -> dict[str, tarfile.TarInfo]:
    context = open_context(str(said), dockerfile)
    content = b"".join([chunk async for chunk in context.chunks()])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        entries = {info.name: info for info in archive.getmembers()}
    assert context.dockerfile in entries
    return entries


def _folder(root: Path) -> Path:
    (root / "src" / "deep").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "src" / "a.txt").write_text("a" * 1000)
    (root / "src" / "deep" / "b.log").write_text("b")
    (root / "link").symlink_to("src/a.txt")
    (root / "to-folder").symlink_to("src")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


async def test_a_folder_is_sent_whole(tmp_path: Path) -> None:
    """Files, folders and links with their modes; everything belongs to root."""
    entries = await _entries(_folder(tmp_path))
    assert sorted(entries) == [
        "Dockerfile",
        "link",
        "run.sh",
        "src",
        "src/a.txt",
        "src/deep",
        "src/deep/b.log",
        "to-folder",
    ]
    assert entries["link"].linkname == "src/a.txt"
    assert entries["to-folder"].issym()
    assert entries["run.sh"].mode == 0o755
    assert entries["src/a.txt"].size == 1000
    assert {(info.uid, info.gid) for info in entries.values()} == {(0, 0)}


async def test_the_content_arrives(tmp_path: Path) -> None:
    """What is in the tar is what is in the file, also beyond one chunk."""
    _folder(tmp_path)
    big = os.urandom(3 * 1024 * 1024 + 7)
    (tmp_path / "big").write_bytes(big)
    content = b"".join([chunk async for chunk in open_context(str(tmp_path)).chunks()])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        file = archive.extractfile("big")
        assert file is not None
        assert file.read() == big


async def test_dockerignore_is_honoured(tmp_path: Path) -> None:
    """Excluded folders stay out, what is taken back comes along, the Dockerfile always does."""
    _folder(tmp_path)
    (tmp_path / ".dockerignore").write_text("*\n!src/deep\n")
    assert sorted(await _entries(tmp_path)) == [".dockerignore", "Dockerfile", "src/deep", "src/deep/b.log"]


async def test_a_dockerfiles_own_ignore_file_wins(tmp_path: Path) -> None:
    """`other.dockerignore` beside `other` is used instead of `.dockerignore`."""
    _folder(tmp_path)
    (tmp_path / ".dockerignore").write_text("*\n")
    (tmp_path / "other").write_text("FROM scratch\n")
    (tmp_path / "other.dockerignore").write_text("src\n")
    entries = await _entries(tmp_path, "other")
    assert "run.sh" in entries
    assert "src/a.txt" not in entries


async def test_a_dockerfile_in_an_excluded_folder_is_found(tmp_path: Path) -> None:
    """The engine needs it, whatever the patterns say."""
    _folder(tmp_path)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "Dockerfile.web").write_text("FROM scratch\n")
    (tmp_path / ".dockerignore").write_text("docker\n")
    assert "docker/Dockerfile.web" in await _entries(tmp_path, "docker/Dockerfile.web")


async def test_a_dockerfile_from_outside_comes_along(tmp_path: Path) -> None:
    """It is sent under a name of its own."""
    context = _folder(tmp_path / "context")
    outside = tmp_path / "elsewhere"
    outside.write_text("FROM scratch\n")
    entries = await _entries(context, str(outside))
    assert any(name.startswith(".dockerfile.") for name in entries)


async def test_a_dockerfile_alone_is_a_context(tmp_path: Path) -> None:
    """Nothing else is sent."""
    (tmp_path / "My.Dockerfile").write_text("FROM scratch\n")
    assert list(await _entries(tmp_path / "My.Dockerfile")) == ["Dockerfile"]


async def test_a_tar_passes_as_it_is(tmp_path: Path) -> None:
    """A tar of a context, packed or not, is sent byte for byte."""
    packed = tmp_path / "context.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(_folder(tmp_path / "c") / "Dockerfile", "./Dockerfile")
    context = open_context(str(packed))
    assert b"".join([chunk async for chunk in context.chunks()]) == packed.read_bytes()


async def test_sockets_are_left_out(tmp_path: Path) -> None:
    """No tar can hold one; the docker client leaves them out as well."""
    _folder(tmp_path)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        assert "s" not in await _entries(tmp_path)


def test_no_dockerfile_is_one_clear_error(tmp_path: Path) -> None:
    """A folder or tar without one is refused before anything is sent, with what to do."""
    with pytest.raises(BadInput, match="holds no Dockerfile: add one, or name another file with --file") as caught:
        open_context(str(tmp_path))
    assert caught.value.code == "no_dockerfile"
    with pytest.raises(BadInput, match="there is no Dockerfile nope"):
        open_context(str(tmp_path), "nope")
    tar = tmp_path / "context.tar"
    with tarfile.open(tar, "w") as archive:
        archive.addfile(tarfile.TarInfo("other"))
    with pytest.raises(BadInput, match="holds no Dockerfile"):
        open_context(str(tar))


def test_what_is_not_there_or_broken_is_said(tmp_path: Path) -> None:
    """Each kind of wrong context has its own line."""
    with pytest.raises(NotFound, match="there is no file"):
        open_context(str(tmp_path / "nope"))
    packed = tmp_path / "cut.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        info = tarfile.TarInfo("big")
        info.size = 1 << 20
        archive.addfile(info, io.BytesIO(os.urandom(1 << 20)))
    packed.write_bytes(packed.read_bytes()[:100_000])
    with pytest.raises(BadArchive, match="broken or cut off"):
        open_context(str(packed))
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / ".dockerignore").write_text("[a\n")
    with pytest.raises(BadInput, match=r"\.dockerignore: a '\[' without its '\]'"):
        open_context(str(tmp_path))


async def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    """A context must not arrive with something else in it than it says."""
    _folder(tmp_path)
    (tmp_path / "big").write_bytes(b"x" * 4 * 1024 * 1024)

    async def send() -> None:
        async for chunk in open_context(str(tmp_path)).chunks():
            if b"big" in chunk[:100]:
                os.truncate(tmp_path / "big", 1024 * 1024)

    with pytest.raises(BadInput, match="became shorter"):
        await send()


async def test_a_context_that_is_not_sent_whole_keeps_no_file_open(tmp_path: Path) -> None:
    """The engine may refuse it in the middle of a large file."""
    (tmp_path / "Dockerfile").write_bytes(bytes(3_000_000))
    chunks = open_context(str(tmp_path)).chunks()
    await anext(chunks)
    await anext(chunks)
    async with closing(chunks):
        pass
    assert not [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink() and _target(one) == "Dockerfile"]


def _target(link: Path) -> str:
    try:
        return link.readlink().name
    except FileNotFoundError:  # the folder's own descriptor
        return ""
