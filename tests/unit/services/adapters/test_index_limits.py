"""Layers beyond the limits of the index maker cost that much once."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.adapters.index_limits import AGAIN_SECONDS, BeyondLimits, LimitReached
from services.errors import LayersNotMounted


def test_what_reached_a_limit_is_not_tried_again_for_a_while(tmp_path: Path) -> None:
    """The reason is told each time. Another file under the name, and the same after a while, are tried."""
    now, tries = [0.0], list[str]()
    beyond, tar = BeyondLimits(lambda: now[0]), tmp_path / "tar"
    tar.write_bytes(b"one")

    def run() -> None:
        with tar.open("rb") as source, beyond.noted("layer", source):
            tries.append(tar.read_text())
            raise LimitReached("it did not end within 1 s")

    for _ in range(3):
        with pytest.raises(LayersNotMounted, match="did not end within 1 s"):
            run()
    assert tries == ["one"]
    tar.write_bytes(b"other")
    with pytest.raises(LayersNotMounted):
        run()
    now[0] = AGAIN_SECONDS + 1
    with pytest.raises(LayersNotMounted):
        run()
    assert tries == ["one", "other", "other"]


def test_other_failures_are_not_remembered(tmp_path: Path) -> None:
    """A full disk may have room later."""
    beyond, tar = BeyondLimits(), tmp_path / "tar"
    tar.write_bytes(b"one")
    for _ in range(2):
        with pytest.raises(OSError, match="full"), tar.open("rb") as source, beyond.noted("layer", source):
            raise OSError("the disk is full")
    with tar.open("rb") as source, beyond.noted("layer", source):
        pass


def test_a_thousand_are_remembered(tmp_path: Path) -> None:
    """The oldest is forgotten first."""
    beyond, tar = BeyondLimits(), tmp_path / "tar"
    tar.write_bytes(b"one")
    for number in range(1001):
        with pytest.raises(LayersNotMounted), tar.open("rb") as source, beyond.noted(f"layer-{number}", source):
            raise LimitReached("it is too large")
    with tar.open("rb") as source, beyond.noted("layer-0", source):
        pass
    with (
        pytest.raises(LayersNotMounted, match="earlier try"),
        tar.open("rb") as source,
        beyond.noted("layer-1000", source),
    ):
        pass
