"""What an engine was shown, and what of it it does not use."""

from __future__ import annotations

from pathlib import Path

from services.adapters.placed_layers import NAME, PlacedLayers, PlacedLayersFile


def test_folders_of_a_transfer_under_way_are_in_use() -> None:
    """Until it is settled; afterwards only those that the engine uses."""
    placed = PlacedLayers().accepted("t-1", ["a", "b", "a"])
    assert placed.unused([]) == {}
    assert placed.settled("t-1").unused(["a"]) == {"b": "t-1"}


def test_every_grant_of_a_folder_is_given_back() -> None:
    """One at a time; the host may have seen the transfers in another order."""
    placed = PlacedLayers().accepted("t-1", ["a"]).accepted("t-2", ["a"]).settled("t-1").settled("t-2")
    given = list[dict[str, str]]()
    while grants := placed.unused([]):
        given.append(grants)
        placed = placed.without(grants)
    assert given == [{"a": "t-1"}, {"a": "t-2"}]
    assert placed == PlacedLayers()


def test_of_a_folder_in_use_one_grant_is_kept() -> None:
    """Grants that a later one replaces are given back when their transfers are over, so that they do not pile up."""
    placed = PlacedLayers().accepted("t-1", ["a"]).accepted("t-2", ["a"])
    assert placed.unused(["a"]) == {}
    placed = placed.settled("t-1")
    assert placed.unused(["a"]) == {"a": "t-1"}
    placed = placed.without({"a": "t-1"}).settled("t-2")
    assert placed.unused(["a"]) == {}
    assert placed.grants == {"a": "t-2"}


def test_the_file_survives_another_process(tmp_path: Path) -> None:
    """And one that cannot be read is as if there were none: the host keeps what it shows."""
    PlacedLayersFile(tmp_path).change(lambda placed: placed.accepted("t-1", ["a"]))
    assert PlacedLayersFile(tmp_path).read().grants == {"a": "t-1"}
    (tmp_path / NAME).write_bytes(b"{ no json")
    assert PlacedLayersFile(tmp_path).read() == PlacedLayers()
