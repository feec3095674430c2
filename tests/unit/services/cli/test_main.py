"""The command line as a whole: help, settings, errors, exit statuses."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from services.cli import main
from tests.unit.services.cli.conftest import Shell


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands(main))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help(shell: Shell, path: tuple[str, ...]) -> None:
    """A sentence for the command and one for each of its options."""
    result = shell.run(*path, "--help")
    assert result.exit_code == 0
    assert COMMANDS[path].help
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert option.help, option.name


def test_the_front_page_documents_the_exit_statuses(shell: Shell) -> None:
    """With examples, and a status for each kind of trouble."""
    text = shell.run("--help").stdout
    assert "Examples:" in text
    for status in (
        "0 done",
        "2 bad input",
        "4 a dependency is unavailable",
        "5 a transfer",
        "6 a disk",
        "7 a role",
        "130 Ctrl-C",
    ):
        assert status in text


def test_help_loads_nothing_heavy() -> None:
    """`--help` answers at once because no client library is imported for it."""
    code = (
        "import sys; from click.testing import CliRunner; from services.cli import main;"
        "assert CliRunner().invoke(main, ['images', 'build', '--help']).exit_code == 0;"
        "print([name for name in ('aiohttp', 'aiodocker', 'redis', 'rich', 'structlog') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_typo_in_a_variable_stops_every_command(shell: Shell) -> None:
    """With its name, the reason and the nearest name; the exit status is that of bad input."""
    result = shell.run("ranges", "ls", CYROID_REDS_URL="redis://h")
    assert result.exit_code == 2
    assert result.stderr == "error: CYROID_REDS_URL: there is no such setting; did you mean CYROID_REDIS_URL?\n"
    assert result.stdout == ""


def test_a_wrong_flag_is_told_like_a_wrong_variable(shell: Shell) -> None:
    """The flag's name stands first."""
    result = shell.run("--redis-url", "nonsense", "ranges", "ls")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --redis-url: must be a URL such as redis://")


def test_settings_are_listed_with_secrets_masked(shell: Shell) -> None:
    """Every variable, its value here, and what it means."""
    text = shell.run("settings", CYROID_REGISTRY_PASSWORD="hunter2").stdout
    assert "CYROID_REGISTRY_PASSWORD=***   (not the default)" in text
    assert "hunter2" not in text
    rows = {row["variable"]: row for row in shell.json("settings", CYROID_LEASE_SECONDS="12")}
    assert rows["CYROID_LEASE_SECONDS"]["value"] == 12
    assert rows["CYROID_LEASE_SECONDS"]["default"] == 30
    assert rows["CYROID_LEASE_SECONDS"]["expects"] == "a number of seconds from 3 to 600"


def test_redis_that_is_away_is_one_line(shell: Shell) -> None:
    """Exit status 4, what to do, no traceback."""
    shell.world.bus.calls_left = 0
    result = shell.run("images", "build", "/nowhere", "-t", "a:1")
    assert result.exit_code == 2  # the folder is looked at first
    result = shell.run("deploy", "r1", "a:1")
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert "see whether Redis runs and CYROID_REDIS_URL is right" in result.stderr


def test_an_unknown_role_is_told_with_those_there_are(shell: Shell) -> None:
    """Before anything is opened."""
    result = shell.run("serve", "nonsense")
    assert result.exit_code == 2
    assert "there is no role 'nonsense'; there are: " in result.stderr


def test_ctrl_c_is_a_clean_end(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 130 and a word, no traceback."""

    async def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("services.queries.known_ranges.known_ranges", interrupted)
    result = shell.run("ranges", "ls")
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"
