"""The push parser of tars."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.archives.tar_parser import EntryContent, EntryEnd, EntryStart, TarParser
from tests.unit.services.core.archives.tars import entry, tar

FILES = {"a": b"", "b/c": b"x" * 511, "d" * 200: b"y" * 1024, "e": b"z" * 5000}
CONTENT = tar(FILES, tarfile.PAX_FORMAT) + b"padding"


@given(st.integers(1, 6000))
def test_parts_are_the_bytes_that_were_fed(step: int) -> None:
    """However they are cut; each entry begins, has its content, and ends."""
    parser, parts = TarParser(), []
    for place in range(0, len(CONTENT), step):
        parts += [(type(part), bytes(part.raw)) for part in parser.feed(CONTENT[place : place + step])]
    whole = b"".join(raw for _, raw in parts)
    assert CONTENT.startswith(whole)
    assert not CONTENT[len(whole) :].rstrip(b"padding").strip(b"\0")
    assert b"".join(raw for kind, raw in parts if kind is EntryContent) == b"".join(FILES.values())
    ends = [kind for kind, _ in parts if kind is not EntryContent]
    assert ends == [EntryStart, EntryEnd] * len(FILES)
    assert (parser.ended, parser.is_whole, parser.entries) == (True, True, len(FILES))


def test_a_tar_may_end_between_entries_only() -> None:
    """Not within a header, an extended header, content or padding."""
    long, file = entry("x" * 200), tar({"f": b"y" * 700})[: 512 + 1024]
    for content in (long, file):
        for length in range(0, len(content), 64):
            parser = TarParser()
            list(parser.feed(content[:length]))
            assert parser.is_whole == (length == 0)
        parser = TarParser()
        list(parser.feed(content))
        assert parser.is_whole


def test_what_is_no_tar_is_a_value_error() -> None:
    """At the first block."""
    with pytest.raises(ValueError, match="no tar header"):
        list(TarParser().feed(b"no tar" * 100))
