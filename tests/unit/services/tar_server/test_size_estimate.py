"""Room for an archive of unknown length."""

from __future__ import annotations

from services.tar_server.size_estimate import SizeEstimate, size_estimate_for

MEBIBYTE = 1 << 20
SIZES = {"a": 100, "b": None, "c": None}


def room(*held: str, engine_bytes: int | None = None, counts_files: bool = True, **packed: int) -> SizeEstimate:
    return size_estimate_for(held, sizes=SIZES, packed=packed, engine_bytes=engine_bytes, counts_files=counts_files)


def test_the_engines_size_less_the_known_layers_is_left_for_the_others() -> None:
    """At least that, as it counts files; and an eighth more for what tar adds."""
    assert room("a", "b", "c", engine_bytes=900) == (900, 100 + 900 + MEBIBYTE)


def test_a_part_of_the_unknown_layers_may_be_small() -> None:
    """Which of them is the large one, nobody knows: the likely room stays, the sure one does not."""
    assert room("b", engine_bytes=900) == (0, 900 + MEBIBYTE)


def test_an_engine_that_counts_blobs_and_blocks_says_nothing_sure() -> None:
    """As a containerd store does."""
    assert room("a", "b", "c", engine_bytes=900, counts_files=False) == (100, 100 + 900 + MEBIBYTE)


def test_compressed_blobs_bound_from_below_what_they_hold() -> None:
    """Where no engine has the image, and also where one has it."""
    assert room("b", "c", b=50, c=10) == (60, 240 + MEBIBYTE)
    assert room("b", engine_bytes=110, b=50) == (50, 50 + MEBIBYTE)


def test_known_layers_alone_ask_for_nothing_more() -> None:
    """Whatever the engine says of the rest."""
    assert room("a", engine_bytes=900) == (100, 100 + MEBIBYTE)
