"""The API that the tests of its routes call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.services.api.site import Service, open_service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """An API over fakes."""
    async with open_service() as opened:
        yield opened
