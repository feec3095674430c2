"""Kills on the way of mounted layers, on either store: the image is there and right in the end, and nothing is left.

`python -m bench killall --mounted` kills everything at every step; here each victim dies once.
"""

from __future__ import annotations

import pytest

from bench.killall.mounted import VICTIMS, MountedKills
from tests.e2e.mounted import logs_of
from tests.e2e.scene import BASE, Scene

pytestmark = pytest.mark.real

KILLS = (
    ("layer-mounter", "mount asked"),
    ("agent", "accepted"),
    ("engine", "placing"),
    ("range", "placing"),
    ("registry", "pull asked"),
    ("services", "mounted"),
)


def test_whatever_is_killed_the_image_is_there_and_no_mount_is_left(mounted: Scene) -> None:
    """Containers start on the right content or not at all; removed images leave neither mounts nor links."""
    assert {victim for victim, _ in KILLS} == set(VICTIMS)
    kills = MountedKills(
        mounted.system, mounted.book, base=BASE, names=("m-services", "m-mounter"), ranges=("m-28.5", "m-20.10-classic")
    )
    results = [kills.run(victim, moment) for victim, moment in KILLS]
    told = "\n".join(result.line() for result in results)
    assert [[*result.lost, *result.wrong] for result in results] == [[]] * len(KILLS), told + logs_of(mounted.system)
    assert kills.leaked() == [], told + logs_of(mounted.system)
