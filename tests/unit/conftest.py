"""Tests marked `faked_time` run in a loop whose time passes only while everybody sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.simulation import FakedLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One loop for each test: the faked one where it is asked for."""
    return {"loop": FakedLoop if item.get_closest_marker("faked_time") else asyncio.new_event_loop}
