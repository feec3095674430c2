"""`services.range_gateway.secrets`: a range is who has its secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.range_gateway.secrets import RangeSecrets, digest


def test_the_right_secret_of_the_right_range(tmp_path: Path) -> None:
    """One range's secret is of no use for another's name."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{digest('secret of ' + name)}\n")
    secrets = RangeSecrets(tmp_path)
    assert secrets.knows("a", "secret of a")
    assert not secrets.knows("b", "secret of a")
    assert not secrets.knows("c", "secret of a")
    assert not RangeSecrets(None).knows("a", "secret of a")


@pytest.mark.parametrize("name", ["../outside", "folder/x", "", ".", "..", "a\0", "a\n"])
def test_names_lead_nowhere_else(name: str, tmp_path: Path) -> None:
    """A name that is no range id is never made into a path, even where there is a file."""
    (tmp_path / "folder").mkdir()
    for file in (tmp_path / "outside", tmp_path / "folder" / "x"):
        file.write_text(digest("s"))
    assert not RangeSecrets(tmp_path / "folder").knows(name, "s")


def test_the_sum_itself_opens_nothing(tmp_path: Path) -> None:
    """Whoever reads the folder cannot pass for a range."""
    (tmp_path / "a").write_text(digest("secret"))
    assert not RangeSecrets(tmp_path).knows("a", digest("secret"))
