"""Keys of `bench transfer --mounted`: what is reached, and what was not measured."""

from __future__ import annotations

from bench.transfer.mounted_report import CLASSIC_TARGETS, RATIOS, TARGETS, judged


def test_less_is_better_but_for_the_speed_of_reading() -> None:
    found = {"known_1_vs_tar": 0.02, "cold_read_vs_pulled": 0.9, "small_files_vs_pulled": 1.3}
    keys = judged(found, TARGETS)
    assert keys["known_1_vs_tar"] == {
        "is": 0.02, "reach": 0.03, "stretch": 0.015, "reached": True, "stretch_reached": False,
    }  # fmt: skip
    assert (keys["cold_read_vs_pulled"]["reached"], keys["cold_read_vs_pulled"]["stretch_reached"]) == (True, False)
    assert keys["small_files_vs_pulled"]["reached"] is False


def test_every_key_is_reported_also_one_that_was_not_measured() -> None:
    keys = judged({"small_files_warm_vs_pulled": 1.0}, CLASSIC_TARGETS)
    assert set(keys) == {*TARGETS, "small_files_warm_vs_pulled"}
    assert keys["ingest_vs_copy"] == {
        "is": None, "reach": 1.5, "stretch": 1.0, "reached": None, "stretch_reached": None,
    }  # fmt: skip


def test_ratios_are_targets_or_told_beside_them() -> None:
    assert set(RATIOS) - set(TARGETS) == {"small_files_warm_vs_pulled"}
