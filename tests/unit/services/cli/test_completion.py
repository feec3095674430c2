"""Completion scripts of shells."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from services.cli import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_calls_the_program_back(shell: str) -> None:
    """By the variable that the program itself looks at."""
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_CYROID_IMAGES_COMPLETE" in done.output
    assert "cyroid-images" in done.output
