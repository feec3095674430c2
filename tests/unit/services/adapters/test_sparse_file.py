"""Sparse files: which parts are written, and what a reader gets."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from services.adapters.sparse_file import BLOCK_BYTES, data_runs, write_sparse

HALF = BLOCK_BYTES // 2


def test_blocks_of_zeros_are_left_out() -> None:
    """Blocks are those of the file, wherever the chunk begins; neighbours are written in one piece."""
    zeros, data = bytes(BLOCK_BYTES), b"x" * BLOCK_BYTES
    assert list(data_runs(zeros * 3, 0)) == []
    assert list(data_runs(data + zeros + data + data, 0)) == [
        (0, BLOCK_BYTES),
        (2 * BLOCK_BYTES, 4 * BLOCK_BYTES),
    ]
    assert list(data_runs(bytes(HALF) + zeros + b"x", HALF)) == [(HALF + BLOCK_BYTES, HALF + BLOCK_BYTES + 1)]
    assert list(data_runs(b"x" + zeros, HALF)) == [(0, HALF)]
    assert list(data_runs(b"", 5)) == []


@given(
    st.lists(st.tuples(st.sampled_from([b"\0", b"x"]), st.integers(0, 2 * BLOCK_BYTES)), min_size=1, max_size=6),
    st.integers(1, 3 * BLOCK_BYTES),
)
def test_a_reader_gets_what_was_written(pieces: list[tuple[bytes, int]], chunk_bytes: int) -> None:
    """However the content is cut into chunks."""
    content = b"".join(byte * count for byte, count in pieces)
    descriptor = os.memfd_create("sparse")
    try:
        for start in range(0, len(content), chunk_bytes):
            write_sparse(descriptor, content[start : start + chunk_bytes], start)
        os.ftruncate(descriptor, len(content))
        assert os.pread(descriptor, len(content) + 1, 0) == content
    finally:
        os.close(descriptor)


def test_zeros_take_no_room(tmp_path: Path) -> None:
    """A file of 64 MiB with a block at each end takes those two."""
    content = b"a" * BLOCK_BYTES + bytes(62 << 20) + b"z" * BLOCK_BYTES
    with (tmp_path / "disk").open("xb") as file:
        write_sparse(file.fileno(), content, 0)
        os.fsync(file.fileno())
        status = os.fstat(file.fileno())
    assert status.st_size == len(content)
    assert status.st_blocks * 512 <= 4 * BLOCK_BYTES
