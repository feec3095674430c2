"""`python -m deploy.lab`, the last step of `make setup`."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.lab.__main__ import main


def test_a_base_image_in_the_cache_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it and without a mirror it fails with one explanation; with it nothing is downloaded."""
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IMAGES_LAB_CACHE", str(tmp_path / "cache"))
    assert main() == 1
    assert "busybox-static, netbase, base-files cannot be downloaded" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "cache/base-image.tar").touch()
    assert main() == 0
