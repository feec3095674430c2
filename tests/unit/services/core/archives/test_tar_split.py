"""Tar-split lists."""

from __future__ import annotations

import pytest

from services.core.archives.tar_split import FILE, SEGMENT, Entry, decode, has_sparse_file, tar_size

LINES = (
    b'{"type":2,"payload":"aGVhZA==","position":0}\n'
    b'{"type":1,"name":"etc/hosts","size":12,"payload":"AAAAAAAAAAA=","position":1}\n'
    b'{"type":2,"payload":null,"position":2}\n'
    b'{"type":1,"name_raw":"/zE=","payload":null,"position":3}\n'
)


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
def test_entries_come_whole_however_the_text_is_cut(block: int) -> None:
    """Lines cut anywhere by the reader decode as the lines they are."""
    blocks = [LINES[start : start + block] for start in range(0, len(LINES), block)]
    entries = [entry for batch in decode(blocks) for entry in batch]
    assert [entry.type for entry in entries] == [SEGMENT, FILE, SEGMENT, FILE]
    assert entries[0].payload == b"head"
    assert entries[1].path == b"etc/hosts"
    assert entries[3].path == b"\xff1"
    assert tar_size([entries]) == 4 + 12


def test_a_last_line_without_newline_counts() -> None:
    """Writers end with a newline, readers do without."""
    assert sum(len(batch) for batch in decode([LINES[:-1]])) == 4


@pytest.mark.parametrize("text", [b"{}\n", b'{"type":3}\n', b'{"type":1,"size":-5}\n', b"no json\n", b'{"type":1,'])
def test_anything_else_is_refused(text: bytes) -> None:
    """A list that cannot be trusted is no list."""
    with pytest.raises(ValueError, match=r".+"):
        list(decode([text]))


@pytest.mark.parametrize(
    ("header", "sparse"),
    [
        (b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", True),
        (b"30 GNU.sparse.map=0,512,1024,8\n", True),
        (b"30 path=about GNU.sparse.map=\n", False),
        (b"t/GNU.sparse.major", False),
    ],
)
def test_sparse_files_are_known_by_their_header(header: bytes, sparse: bool) -> None:
    """A name or a content that speaks of them is none."""
    assert has_sparse_file([Entry(type=FILE, name="t", size=3), Entry(type=SEGMENT, payload=header)]) == sparse
    assert not has_sparse_file([Entry(type=FILE, name="t", payload=header)])
