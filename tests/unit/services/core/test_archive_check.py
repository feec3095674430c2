"""Looking at an archive while it flows by."""

import io
import json
import tarfile
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.archive_check import ArchiveCheck
from services.core.manifests import sha256
from services.errors import BadArchive

LAYER = b"layer bytes" * 1000
CONFIG = b'{"architecture":"amd64","os":"linux"}'


def _tar(contents: Mapping[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _docker(tags: list[str] | None, *, layers: tuple[str, ...] = ("a/layer.tar",)) -> dict[str, bytes]:
    manifest = json.dumps([{"Config": "c.json", "RepoTags": tags, "Layers": ["a/layer.tar"]}]).encode()
    return {"c.json": CONFIG, **dict.fromkeys(layers, LAYER), "manifest.json": manifest}


def _oci(name: str | None) -> dict[str, bytes]:
    manifest = b"{}"
    digest = sha256(manifest)
    annotations = {"io.containerd.image.name": name} if name else {}
    index = json.dumps({"manifests": [{"digest": digest, "annotations": annotations}]}).encode()
    return {"oci-layout": b"{}", f"blobs/{digest.replace(':', '/')}": manifest, "index.json": index}


def _check(content: bytes, step: int = 1 << 20) -> list[str]:
    check = ArchiveCheck("x.tar")
    for place in range(0, len(content), step):
        check.feed(content[place : place + step])
    return check.finish()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_docker_archive_tells_its_names(form: int) -> None:
    """Names come from manifest.json, whatever dialect the tar has."""
    long = {f"{'d' * 90}/{'e' * 60}/layer.tar": b"x"}
    assert _check(
        _tar(
            {**long, **_docker(["web:1", "web:2"])} if form != tarfile.USTAR_FORMAT else _docker(["web:1", "web:2"]),
            form,
        )
    ) == [
        "web:1",
        "web:2",
    ]


def test_an_oci_layout_tells_its_names() -> None:
    """Names come from the index's annotations."""
    assert _check(_tar(_oci("docker.io/library/web:1"))) == ["docker.io/library/web:1"]


def test_an_image_without_a_name_is_an_image() -> None:
    """It is for the caller to ask for a name."""
    assert _check(_tar(_docker(None))) == []
    assert _check(_tar(_oci(None))) == []


@given(st.integers(min_value=1, max_value=5000))
def test_pieces_do_not_matter(step: int) -> None:
    """However the stream is cut into chunks, the result is the same."""
    assert _check(_tar(_docker(["web:1"])), step) == ["web:1"]


@given(st.integers(min_value=0, max_value=len(_tar(_docker(["web:1"])).rstrip(b"\0")) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    """An archive that ends before its last entry does is never taken for whole."""
    with pytest.raises(BadArchive):
        _check(_tar(_docker(["web:1"]))[:length], 777)


def test_an_archive_without_its_end_marker_is_whole() -> None:
    """Some writers leave out the two empty blocks; what counts is that everything named is there."""
    content = _tar(_docker(["web:1"]))
    whole = len(content.rstrip(b"\0"))
    assert _check(content[: whole + -whole % 512]) == ["web:1"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello" * 1000, "is no tar archive"),
        (_tar({"notes.txt": b"hi"}), "holds neither manifest.json nor index.json"),
        (_tar({"./etc/passwd": b"root"}), "a file system: it begins with 'etc/passwd'"),
        (_tar({"manifest.json": b"not json"}), "manifest.json cannot be read"),
        (_tar({"manifest.json": b"[]"}), "holds no image"),
        (_tar({"index.json": b"[]"}), "index.json cannot be read"),
        (_tar(_docker(["a:1"], layers=())), "not whole: a/layer.tar is missing"),
        (
            _tar({name: content for name, content in _oci("a:1").items() if "blobs" not in name}),
            "not whole: blob sha256",
        ),
    ],
)
def test_what_is_no_image_archive_is_refused(content: bytes, reason: str) -> None:
    """The message says what it is instead, or what is missing."""
    with pytest.raises(BadArchive, match=reason):
        _check(content)


def test_a_file_system_is_refused_at_its_first_entry() -> None:
    """Not after gigabytes were sent."""
    check = ArchiveCheck("x.tar")
    with pytest.raises(BadArchive, match="file system"):
        check.feed(_tar({"usr/bin/sh": b"x" * 100_000})[:512])


def test_little_is_kept() -> None:
    """A layer's bytes are counted, not collected."""
    check = ArchiveCheck("x.tar")
    info = tarfile.TarInfo("a/layer.tar")
    info.size = 1 << 34
    check.feed(info.tobuf(tarfile.GNU_FORMAT))
    for _ in range(64):
        check.feed(bytes(1 << 20))
    assert check.seen_bytes == 512 + 64 * (1 << 20)
    assert len(check._buffer) == 0
