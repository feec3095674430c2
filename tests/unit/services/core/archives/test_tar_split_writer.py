"""The tar-split of a tar: with the files' content it is the tar again, and what an engine refuses is refused."""

from __future__ import annotations

import io
import tarfile

import pytest
from fastcrc import crc64

from services.core.archives.tar_split import FILE, SEGMENT, decode, tar_size
from services.core.archives.tar_split_writer import TarSplitWriter

FILES = {
    "a": b"one",
    "empty": b"",
    "folder/" + "long" * 60: b"x" * 513,
    "big": b"0123456789" * 300_000,
    "name\nwith newline": b"odd",
    "not-utf8-\udcff": b"raw",
}


def tar_of(files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return out.getvalue()


def split(tar: bytes) -> list[bytes]:
    return list(TarSplitWriter(io.BytesIO(tar).read).lines())


def entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_segments_and_files_are_the_tar_again() -> None:
    """Byte for byte, whatever names and kinds it has, and with what follows its end."""
    others = (
        entry("folder", tarfile.DIRTYPE),
        entry("hard", tarfile.LNKTYPE, "a"),
        entry("soft", tarfile.SYMTYPE, "a"),
    )
    tar = tar_of(FILES, others) + b"\0" * 3_000_000
    writer = TarSplitWriter(io.BytesIO(tar).read)
    batches = list(decode(writer.lines()))
    contents = {name.encode(errors="surrogateescape"): content for name, content in FILES.items()}
    again = b"".join(
        contents.get(line.path, b"") if line.type == FILE else line.payload or b""
        for batch in batches
        for line in batch
    )
    assert again == tar
    assert tar_size(batches) == len(tar)
    assert writer.files_bytes == sum(map(len, FILES.values()))


def test_each_file_has_its_checksum() -> None:
    """CRC-64 as Go's `crc64.ISO`, big-endian; an engine that saves the layer compares it."""
    (batch,) = decode([b"".join(split(tar_of({"a": b"123456789"})))])
    (file,) = (line for line in batch if line.type == FILE)
    assert file.payload == crc64.go_iso(b"123456789").to_bytes(8, "big") == bytes.fromhex("b90956c775a41001")


def test_a_tar_without_entries_is_one_segment() -> None:
    """An empty layer."""
    (batch,) = decode([b"".join(split(bytes(1024)))])
    assert [(line.type, line.payload) for line in batch] == [(SEGMENT, bytes(1024))]


def sparse() -> bytes:
    info = tarfile.TarInfo("hole")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info.size = 512
        tar.addfile(info, io.BytesIO(bytes(512)))
    return out.getvalue()


@pytest.mark.parametrize(
    ("tar", "why"),
    [
        (tar_of({"a": b"1"}, (entry("./a", tarfile.REGTYPE),)), "twice"),
        (tar_of({"a": b"x" * 2000})[:1024], "cut off"),
        (b"no tar at all" * 100, "no tar header"),
        (sparse(), "sparse"),
    ],
    ids=["twice", "cut", "no-tar", "sparse"],
)
def test_what_an_engine_does_not_give_back_is_refused(tar: bytes, why: str) -> None:
    """Two entries with one path, a tar that ends too soon, what is no tar, and sparse files."""
    with pytest.raises(ValueError, match=why):
        split(tar)
