"""How a standstill of admission is reported."""

from __future__ import annotations

from services.deployer.standstill import Standstill


def test_it_is_told_once_a_minute_after_ten_seconds() -> None:
    """A pass that ends is the end of it, and what follows is counted anew."""
    standstill = Standstill()
    assert [standstill.failed(now) for now in (100.0, 109.0, 110.0, 150.0, 171.0)] == [None, None, 10.0, None, 71.0]
    standstill.moved(172.0)
    assert [standstill.failed(now) for now in (300.0, 309.0, 310.0)] == [None, None, 10.0]
