"""What an engine was shown, and what of it it does not use."""

from __future__ import annotations

from pathlib import Path

from services.adapters.placed_layers import NAME, PlacedLayers, PlacedLayersFile


def test_folders_of_a_transfer_under_way_are_in_use() -> None:
    """Until it is settled; afterwards only those that the engine uses."""
    placed = PlacedLayers().accepted("t-1", ["a", "b", "a"])
    assert placed.unused([]) == {}
    assert placed.settled("t-1").unused(["a"]) == {"b": "t-1"}


def test_a_folder_that_was_shown_anew_is_not_forgotten() -> None:
    """The host was told of an older grant."""
    placed = PlacedLayers().accepted("t-1", ["a"]).accepted("t-2", ["a"])
    assert placed.without({"a": "t-1"}).grants == {"a": "t-2"}
    assert placed.without({"a": "t-2"}).grants == {}


def test_the_file_survives_another_process(tmp_path: Path) -> None:
    """And one that cannot be read is as if there were none: the host keeps what it shows."""
    PlacedLayersFile(tmp_path).change(lambda placed: placed.accepted("t-1", ["a"]))
    assert PlacedLayersFile(tmp_path).read().grants == {"a": "t-1"}
    (tmp_path / NAME).write_bytes(b"{ no json")
    assert PlacedLayersFile(tmp_path).read() == PlacedLayers()
