"""Output of commands: tables for people on stdout, JSON for programs, progress on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
LINE_SECONDS = 10.0
_UNITS = ("B", "kB", "MB", "GB", "TB")


def json_flag(command: F) -> F:
    """The `--json` every command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def print_json(value: Any) -> None:
    """One line of JSON; messages and other Structs as they are on the wire."""
    import msgspec

    click.echo(msgspec.json.encode(value))


def print_page(items: Iterable[Any]) -> None:
    """A list as HTTP answers it."""
    from services.queries.page import Page

    print_json(Page(items=list(items)))


def plain(text: str) -> str:
    """Text without control characters: text from a range may hold escape sequences that deceive its reader."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns as wide as needed. The headings go to stderr when there are no rows."""
    lines = [list(headings), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def size(count: float) -> str:
    """`12.3 MB`, decimal as registries and engines print it."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def ago(moment: datetime) -> str:
    """`3 min ago`."""
    seconds = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def talk(text: str) -> None:
    """Print a line for a person to stderr."""
    click.echo(text, err=True)


class Progress:
    """`show(name, what, done, total)`: bars on a terminal, otherwise lines, one per name in ten seconds."""

    def __init__(self, update: Callable[[str, str, int, int], None]) -> None:
        self._update = update

    def show(self, name: str, what: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        self._update(name, what, done_bytes, total_bytes)


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress on stderr while inside."""
    if sys.stderr.isatty():
        with _bars() as bars:
            yield bars
    else:
        yield Progress(_Lines().update)


class _Lines:
    """Progress for logs and pipes: the first line per name at once, then at most one in ten seconds."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def update(self, name: str, what: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        last = self._last.get(name)
        if last is None or now - last >= LINE_SECONDS:
            self._last[name] = now
            amount = f" {size(done_bytes)}" + (f" of {size(total_bytes)}" if total_bytes else "") if done_bytes else ""
            talk(f"{name}: {what}{amount}")


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
    columns = (
        TextColumn("{task.fields[name]}", table_column=None),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        known: dict[str, TaskID] = {}

        def update(name: str, what: str, done_bytes: int, total_bytes: int) -> None:
            if name not in known:
                known[name] = bars.add_task(what, name=name, total=None)
            # Without a total the bar runs to and fro, which one that ended must not.
            total = total_bytes or (1 if what in ("done", "failed") else None)
            completed = done_bytes if total_bytes else int(what == "done")
            bars.update(known[name], description=what, completed=completed, total=total)

        yield Progress(update)
