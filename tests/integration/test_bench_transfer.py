"""The measurement of transfers, with images so small that it is over soon."""

from __future__ import annotations

import pytest

from bench.transfer.case import RATIOS, main

pytestmark = pytest.mark.real


def test_every_way_is_run_verified_and_compared() -> None:
    """All ways of one range end with the right content, and every ratio of one range is there."""
    result = main(["--size", "6000000", "--files", "300", "--ranges", "1", "--repeats", "1"])
    assert set(result["ratios"]) == {name for name in RATIOS if "_4_" not in name}
    assert result["phases"]["ours_again_1"]["range_bytes"] == 0
    assert result["phases"]["ours_delta_1"]["push_bytes"] < 22_000_000
    assert 20_000_000 < result["phases"]["ours_fallback_delta"]["range_bytes"] < 22_000_000
    assert set(result["peak_memory_bytes"]) == {"registry-pusher", "deployer", "tar-server", "agent"}
