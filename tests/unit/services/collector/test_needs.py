"""Whether a collector can work with the settings: `serve all` starts one where it can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.collector.needs import without_collector


def test_storage_that_can_be_written_is_enough(tmp_path: Path) -> None:
    """Also before the first push; through the API alone no folder is needed."""
    assert without_collector(str(tmp_path), by_api=False) is None
    (tmp_path / "docker/registry/v2").mkdir(parents=True)
    assert without_collector(str(tmp_path), by_api=False) is None
    assert without_collector("", by_api=True) is None


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, both, a folder that is not there, one of something else, one that cannot be written."""
    told = [
        without_collector("", by_api=False),
        without_collector(str(tmp_path), by_api=True),
        without_collector(str(tmp_path / "none"), by_api=False),
    ]
    (tmp_path / "letter").touch()
    told.append(without_collector(str(tmp_path), by_api=False))
    (tmp_path / "docker/registry/v2").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    told.append(without_collector(str(tmp_path), by_api=False))
    words = ("not set", "both set", "no folder here", "no storage folder", "mounted read-only")
    assert [word in (reason or "") for word, reason in zip(words, told, strict=True)] == [True] * 5
