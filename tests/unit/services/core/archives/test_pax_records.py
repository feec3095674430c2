"""Extended headers of pax tars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.archives.pax_records import PaxRecords, check_global


def _record(keyword: bytes, value: bytes) -> bytes:
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def test_decisive_records_are_kept_and_others_passed_over() -> None:
    """Values may hold what ends or separates records; the last of two counts."""
    records = [
        (b"path", b"a=b\nc d"),
        (b"linkpath", b"x"),
        (b"size", b"1"),
        (b"mtime", b"1.5"),
        (b"size", b"9663676416"),
    ]
    assert PaxRecords.parse(b"".join(_record(*one) for one in records)) == PaxRecords("a=b\nc d", "x", 9 << 30)


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_a_value_error(content: bytes) -> None:
    """Nothing else comes out."""
    for parse in (PaxRecords.parse, check_global):
        try:
            parse(content)
        except ValueError:
            continue


@pytest.mark.parametrize("keyword", [b"path", b"size", b"linkpath", b"GNU.sparse.name"])
def test_a_global_record_that_readers_take_differently_is_refused(keyword: bytes) -> None:
    """Engines pass it over, other readers apply it to all entries."""
    check_global(_record(b"comment", b"x") + _record(keyword, b""))
    with pytest.raises(ValueError, match=keyword.decode()):
        check_global(_record(keyword, b"5"))
