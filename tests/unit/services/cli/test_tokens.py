"""`tokens create`."""

from __future__ import annotations

import stat
from pathlib import Path

from services.api.authentication import Actor, parse_tokens, token_hash
from tests.unit.services.cli.conftest import Shell


def test_a_token_is_printed_once_and_its_hash_kept(shell: Shell, tmp_path: Path) -> None:
    """What the file says is what the API reads; a file that ended without a line feed stays whole."""
    path = tmp_path / "tokens"
    first = shell.run("tokens", "create", "eva", "--role", "operator", "--file", str(path)).stdout.strip()
    path.write_text(path.read_text().rstrip())
    second = shell.json("tokens", "create", "wall", "--file", str(path))["token"]
    assert parse_tokens(path.read_text()) == {
        token_hash(first): Actor("eva", "operator"),
        token_hash(second): Actor("wall", "viewer"),
    }
    assert first not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_name_that_cannot_be_one_is_bad_input(shell: Shell, tmp_path: Path) -> None:
    """It would make another line of the file; so is a file that cannot be written."""
    assert shell.run("tokens", "create", "a b").exit_code == 2
    assert shell.run("tokens", "create", "eva", "--file", str(tmp_path)).exit_code == 2
