"""The matrix's cells, and the table of them that the README shows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Way = Literal["registry", "thin tar", "full tar", "mounted"]
Sent = Literal[
    "everything",
    "new layer",
    "new layer on pulled ones",
    "new layer on loaded ones",
    "new layer on mounted ones",
    "new config",
    "nothing",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One image from one kind of host engine to one kind of range engine. `problem` None: all is right."""

    host: str
    range: str
    way: Way
    sent: Sent
    how: str
    received_bytes: int
    layers_reused: int
    layers_total: int
    seconds: float
    problem: str | None

    def row(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        result = "ok" if self.problem is None else f"WRONG: {self.problem}"
        came = f"{self.how} {self.received_bytes:>9} bytes {self.seconds:6.2f} s"
        return f"{self.range:<16} {self.way:<9} {self.sent:<26} {came}  {result}"


def table(cells: Sequence[Cell]) -> str:
    """Markdown: a row per way and difference, a column per range engine, over all hosts: how it came, MB, seconds."""
    ranges = list(dict.fromkeys(cell.range for cell in cells))
    hosts = list(dict.fromkeys(cell.host for cell in cells))
    scenes = list(dict.fromkeys((cell.way, cell.sent) for cell in cells))
    lines = ["| way | what the range lacked | " + " | ".join(f"to {kind}" for kind in ranges) + " |"]
    lines.append("|---" * (len(ranges) + 2) + "|")
    for way, sent in scenes:
        words = [
            _word([one for one in cells if (one.way, one.sent, one.range) == (way, sent, kind)]) for kind in ranges
        ]
        lines.append(f"| {way} | {sent} | " + " | ".join(words) + " |")
    lines += ["", f"Each from {len(hosts)} host engines: {', '.join(hosts)}. Seconds are medians over these."]
    return "\n".join(lines)


def _word(cells: Sequence[Cell]) -> str:
    wrong = [cell.host for cell in cells if cell.problem is not None]
    if wrong:
        return f"**wrong from {', '.join(wrong)}**"
    largest = max(cell.received_bytes for cell in cells)
    seconds = statistics.median(cell.seconds for cell in cells)
    return f"{'/'.join(sorted({cell.how for cell in cells}))}, {largest / 1e6:.1f} MB, {seconds:.2f} s"
