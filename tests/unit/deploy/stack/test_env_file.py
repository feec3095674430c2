"""`.env` beside docker-compose.yml: what `make up` keeps there."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.stack.env_file import read, write


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Also with a sign that Compose would otherwise take for a variable."""
    write(tmp_path / ".env", {"A": "1", "B": "a $b c"})
    assert read(tmp_path / ".env") == ({}, {"A": "1", "B": "a $b c"})
    assert "B='a $b c'" in (tmp_path / ".env").read_text()


def test_an_operators_lines_stay_and_win(tmp_path: Path) -> None:
    """What is set outside the marks is not set again inside, however often it is written."""
    file = tmp_path / ".env"
    file.write_text("# mine\nA=mine\n")
    write(file, {"A": "found", "B": "2"})
    write(file, {"A": "found", "B": "3"})
    assert read(file) == ({"A": "mine"}, {"B": "3"})
    assert file.read_text().startswith("# mine\nA=mine\n")
    write(file, {})
    assert file.read_text() == "# mine\nA=mine\n"


def test_nothing_to_keep_is_no_file(tmp_path: Path) -> None:
    """Taking the stack down with its data leaves none."""
    write(tmp_path / ".env", {"A": "1"})
    write(tmp_path / ".env", {})
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path / ".env") == ({}, {})


@pytest.mark.parametrize("value", ["it's", "two\nlines"])
def test_a_value_that_cannot_be_quoted_is_refused(value: str, tmp_path: Path) -> None:
    """Rather than read as something else later."""
    with pytest.raises(ValueError, match="cannot stand in"):
        write(tmp_path / ".env", {"A": value})
