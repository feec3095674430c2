"""Output of the demonstration: headings, commands, a table per step, checks; bars on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from services.cli.output import size


def short(reference: str) -> str:
    """The familiar form of a reference: without the default registry."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Went:
    """One row: how an image came to one place."""

    image: str
    where: str
    path: str
    sent_bytes: int
    layers_reused: int
    layers_total: int
    seconds: float

    @classmethod
    def of(cls, image: dict[str, Any], where: str, seconds: float = 0.0) -> Self:
        """The row of one image of a deployment that succeeded; `seconds` where the image has no time of its own."""
        return cls(
            image=image["reference"],
            where=where,
            path=image["how"],
            sent_bytes=image.get("sent_bytes", 0),
            layers_reused=image.get("layers_reused", 0),
            layers_total=image.get("layers_total", 0),
            seconds=image.get("seconds", seconds),
        )


class Show:
    """Writes to stdout. Without a terminal: no colour, nothing that moves, 100 columns."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        width = None if self.live else 100
        plain = "NO_COLOR" in os.environ or not self.live
        self.console = Console(width=width, highlight=False, no_color=plain, force_terminal=self.live)
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        self.console.print(Text(text, style="bold"))

    def step(self, number: str, text: str) -> None:
        """The heading of a step."""
        self.console.print()
        elapsed = time.monotonic() - self._began
        self.console.print(Rule(f"[bold]{number}[/] {text}  [dim]{elapsed:.0f} s[/]", align="left", style="dim"))

    def say(self, text: str) -> None:
        """Print a line; may have rich's markup."""
        self._line(Text.from_markup(text))

    def command(self, text: str) -> None:
        """Print a command as a person would type it."""
        self._line(Text(f"$ {text}", style="cyan"))

    def checked(self, text: str) -> None:
        """Print a check that passed."""
        self._line(Text.assemble(("✓ ", "green"), text))

    def failed(self, text: str) -> None:
        """Print a check that failed."""
        self._line(Text.assemble(("✗ ", "bold red"), text))

    def _line(self, text: Text) -> None:
        # Indented by hand and wrapped by the terminal: what is shown can be copied, and nothing is cut.
        for line in text.split("\n", allow_blank=True):
            self.console.print(Text("  ") + line if line.plain else line, soft_wrap=True)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Print a table; `right` are the columns of numbers."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
        for column, heading in enumerate(headings):
            table.add_column(heading, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(Padding(table, (0, 0, 0, 2), expand=False))

    def went(self, ways: Sequence[Went]) -> None:
        """Print the table that ends a step."""
        self.table(
            ("IMAGE", "TO", "PATH TAKEN", "SENT", "LAYERS REUSED", "SECONDS"),
            [
                (
                    short(way.image),
                    way.where,
                    way.path,
                    size(way.sent_bytes),
                    f"{way.layers_reused} of {way.layers_total}",
                    f"{way.seconds:.2f}",
                )
                for way in ways
            ],
            right=(3, 4, 5),
        )

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show a spinner for work that has no progress of its own."""
        if self.live:
            with self.console.status(text):
                yield
        else:
            self.say(text)
            yield
