"""Tests that take minutes and 40 GB of disk."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only when asked for by name: `make test-large` runs them."""
    asked = any("tests/large" in str(argument) for argument in config.args)
    return None if asked else True
