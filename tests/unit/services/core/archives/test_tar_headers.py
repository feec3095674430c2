"""Tar headers of every dialect."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.archives.tar_headers import Header, HeaderReader
from services.core.archives.tar_parser import EntryStart, TarParser
from tests.unit.services.core.archives.tars import Form

SIZES = (0, 1, 511, (8 << 30) - 1, 8 << 30, 9 << 30, 1 << 40)


def _first(raw: bytes) -> Header:
    """The first entry of a tar."""
    return next(part.header for part in TarParser().feed(raw) if isinstance(part, EntryStart))


def _info(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, link: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.pax_headers = kind, size, link, pax
    return info


def _pax(kind: bytes, *records: bytes) -> bytes:
    content = b"".join(records)
    info = _info("pax", kind, size=len(content))
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def _record(keyword: bytes, value: bytes) -> bytes:
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["short", "n" * 100, "d" * 90 + "/" + "e" * 90, "x" * 3000, "ö/é" * 50])
def test_names_and_sizes_of_every_length(form: Form, size: int, name: str) -> None:
    """From 8 GiB on the size is in base 256 or in a pax record; long names are in entries or records of their own."""
    header = _first(_info(name, size=size).tobuf(form))
    assert (header.name, header.content_bytes, header.kind) == (name, size, "file")
    assert header.padding_bytes == -size % 512


def test_a_size_that_goes_and_writers_that_leave_the_field_empty() -> None:
    """Go writes the size of a large entry into the record alone; the record counts, whatever the field says."""
    raw = _pax(b"x", _record(b"size", b"9663676416")) + _info("a/layer.tar").tobuf(tarfile.USTAR_FORMAT)
    assert _first(raw).content_bytes == 9 << 30


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=400),
    st.integers(0, 1 << 62),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]),
)
def test_python_reads_the_same(name: str, size: int, form: Form, kind: bytes) -> None:
    """What Python's library writes and reads: name, link and how much content follows."""
    info = _info(name, kind, size=size if kind == tarfile.REGTYPE else 0, link=name if kind in b"12" else "")
    header = _first(info.tobuf(form))
    wanted = name.rstrip("/") if kind == tarfile.DIRTYPE else name
    assert (header.name, header.content_bytes, header.link) == (wanted, info.size, info.linkname)


def test_a_ustar_prefix_is_part_of_the_name_and_gnus_times_are_not() -> None:
    """GNU's dialect has other fields where ustar has the prefix."""
    block = bytearray(_info("p" * 90 + "/" + "n" * 90).tobuf(tarfile.USTAR_FORMAT))
    assert _first(bytes(block)).name == "p" * 90 + "/" + "n" * 90
    block[257:265] = b"ustar  \0"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
    assert _first(bytes(block)).name == "n" * 90


def test_only_files_have_content() -> None:
    """Links, folders and devices have none, whatever their size says; an unknown type has as much as it says."""
    for kind, content in ((b"1", 0), (b"2", 0), (b"3", 0), (b"4", 0), (b"5", 0), (b"6", 0), (b"7", 700), (b"Z", 700)):
        assert _first(_info("x", kind, size=700).tobuf(tarfile.USTAR_FORMAT)).content_bytes == content


def test_an_empty_record_and_a_record_for_all_entries() -> None:
    """An empty value leaves the field as it is; a comment for all entries, as `git archive` writes, changes nothing."""
    raw = _pax(b"g", _record(b"comment", b"0" * 40)) + _pax(b"x", _record(b"path", b""), _record(b"mtime", b"1.5"))
    assert _first(raw + _info("name", size=5).tobuf(tarfile.USTAR_FORMAT)) == Header("name", 5, unpacked_bytes=5)


def test_a_sparse_file_takes_what_it_unpacks_to() -> None:
    """Its name is in a record of GNU's, and its content is shorter than it."""
    records = [_record(b"GNU.sparse.name", b"disk"), _record(b"GNU.sparse.realsize", b"1099511627776")]
    raw = _pax(b"x", *records) + _info("GNUSparseFile.1/disk", size=512).tobuf(tarfile.USTAR_FORMAT)
    assert _first(raw) == Header("disk", 512, unpacked_bytes=1 << 40)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (bytes(100) + b"x" * 412, "its checksum is"),
        (b"x" * 512, "its checksum is"),
        (_info("a").tobuf().replace(b"ustar", b"ustaR"), "its checksum is wrong"),
        (_pax(b"x", b"junk"), "a broken pax record"),
        (_pax(b"x", b"999 path=x\n"), "a broken pax record"),
        (_pax(b"x", b"5 a=b"), "a broken pax record"),
        (_pax(b"x", _record(b"size", b"-5")), "gives a size of"),
        (_pax(b"x", _record(b"size", b"1_000")), "gives a size of"),
        (_pax(b"x", _record(b"size", b"9" * 30)), "gives a size of"),
        (_pax(b"x", _record(b"path", b"a\0b")), "a zero byte in its path"),
        (_pax(b"g", _record(b"size", b"5")), "a global header sets size for all entries"),
        (_info("big", b"L", size=2 << 20).tobuf(tarfile.USTAR_FORMAT), "an extended header of 2097152 bytes"),
        (_info("disk", b"S").tobuf(tarfile.GNU_FORMAT), "sparse file in GNU tar's old format"),
        (_pax(b"x", _record(b"path", b"a")) + bytes(512), "ends after an extended header"),
        (_info("n", size=-5).tobuf(tarfile.GNU_FORMAT), "has a size of -5"),
    ],
)
def test_what_is_broken_or_read_differently_by_others_is_refused(raw: bytes, reason: str) -> None:
    """With what is wrong."""
    with pytest.raises(ValueError, match=reason):
        list(TarParser().feed(raw))


def test_a_reader_goes_on_with_a_clean_slate() -> None:
    """An extended header counts for one entry."""
    reader = HeaderReader()
    long = _info("x" * 300).tobuf(tarfile.GNU_FORMAT)
    assert reader.header(long[:512]) == 301
    reader.extension(long[512:1024])
    assert reader.header(long[1024:]) == Header("x" * 300, 0)
    assert reader.header(_info("next").tobuf()) == Header("next", 0)
