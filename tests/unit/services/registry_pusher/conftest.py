"""The fakes that a push is tested with."""

from __future__ import annotations

import pytest

from tests.unit.services.registry_pusher.site import Setup


@pytest.fixture
def setup() -> Setup:
    return Setup()
