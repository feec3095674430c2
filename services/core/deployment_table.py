"""Every move an image of a deployment can make, and the drawing of them.

The table is the law: `services.core.deployment_steps` makes no move that is not in it (`check_move` raises), and a
test holds `docs/deployment-states.md` against `page()` and ARCHITECTURE.md against `drawing()`. Run as a program, this
module writes both anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.core.deployment import ACTIVE, ENDED, State

Cause = Literal[
    "asked for",
    "not in the registry",
    "in the registry",
    "registry away",
    "host engine and registry away",
    "unknown or refused",
    "pushed",
    "push failed or stalled",
    "slot free",
    "slot free, by tar",
    "agent asks for tar",
    "engine reports content",
    "failed, tries left",
    "failed for good",
    "no agent within the grace",
    "wrong platform",
    "cancelled",
    "retry requested",
    "range recreated",
]


@dataclass(frozen=True, slots=True)
class Move:
    """From one state to another, and what makes it happen. `before` None: the image's first state."""

    before: State | None
    cause: Cause
    after: State


_WORKING: tuple[State, ...] = ("pulling", "falling_back", "loading")
_OPEN: tuple[State, ...] = ("resolving", "pushing", "queued", *_WORKING)


def _table() -> tuple[Move, ...]:
    moves = [
        Move(None, "asked for", "resolving"),
        Move("resolving", "in the registry", "queued"),
        Move("resolving", "registry away", "queued"),
        Move("resolving", "not in the registry", "pushing"),
        Move("resolving", "push failed or stalled", "queued"),
        Move("resolving", "host engine and registry away", "resolving"),
        Move("resolving", "unknown or refused", "failed"),
        Move("pushing", "pushed", "queued"),
        Move("pushing", "registry away", "queued"),
        Move("pushing", "push failed or stalled", "queued"),
        Move("pushing", "failed for good", "failed"),
        Move("pushing", "no agent within the grace", "failed"),
        Move("queued", "slot free", "pulling"),
        Move("queued", "slot free, by tar", "falling_back"),
        Move("queued", "no agent within the grace", "failed"),
        Move("ready", "range recreated", "resolving"),
        Move("ready", "range recreated", "failed"),
        Move("failed", "retry requested", "resolving"),
        Move("cancelled", "retry requested", "resolving"),
    ]
    for state in _WORKING:
        moves += [
            Move(state, "agent asks for tar", "loading"),
            Move(state, "failed, tries left", "resolving"),
            Move(state, "failed for good", "failed"),
            Move(state, "no agent within the grace", "failed"),
            Move(state, "range recreated", "resolving"),
            Move(state, "range recreated", "failed"),
        ]
    moves += [Move(state, "wrong platform", "failed") for state in ("pushing", "queued", *_WORKING)]
    for state in _OPEN:
        moves += [Move(state, "engine reports content", "ready"), Move(state, "cancelled", "cancelled")]
    return tuple(moves)


MOVES: tuple[Move, ...] = _table()
#: Where a document has the drawing.
BEGIN, END = "<!-- states: begin -->", "<!-- states: end -->"
_ALLOWED = frozenset(MOVES)


def check_move(before: State | None, cause: Cause, after: State) -> None:
    """Raises AssertionError for a move that is not in the table: a mistake in the machine, never in its input."""
    if Move(before, cause, after) not in _ALLOWED:
        raise AssertionError(f"no move from {before} to {after} because of {cause!r} is in the table")


def drawing() -> str:
    """The table as a Mermaid state diagram; moves between the same two states share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for move in MOVES:
        arrows.setdefault((move.before or "[*]", move.after), []).append(move.cause)
    lines = ["stateDiagram-v2", "    direction LR"]
    lines += [f"    {before} --> {after}: {' / '.join(causes)}" for (before, after), causes in arrows.items()]
    lines += [f"    {state} --> [*]" for state in ("ready", "failed", "cancelled")]
    return "\n".join(lines)


def page() -> str:
    """docs/deployment-states.md, whole."""
    working = ", ".join(f"`{state}`" for state in sorted(ACTIVE))
    ended = ", ".join(f"`{state}`" for state in sorted(ENDED))
    rows = [f"| `{move.before or '-'}` | {move.cause} | `{move.after}` |" for move in MOVES]
    return "\n".join(
        [
            "# The states of an image in a deployment",
            "",
            "Generated from `services/core/deployment_table.py` by `python -m services.core.deployment_table`; a test",
            "holds this page against the code.",
            "",
            f"A deployment succeeded when all its images are `ready`; it ends when all are in {ended}.",
            f"The engine of the range is at work, and one of the host's slots is taken, in {working}.",
            "",
            "```mermaid",
            drawing(),
            "```",
            "",
            "| from | because | to |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def drawn_into(text: str) -> str:
    """A document with the drawing as it is now between its two marks. Raises ValueError for one without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} … {END}: put the marks where the drawing belongs")
    return f"{before}{BEGIN}\n```mermaid\n{drawing()}\n```\n{END}{after}"


if __name__ == "__main__":
    from pathlib import Path

    Path("docs/deployment-states.md").write_text(page())
    architecture = Path("ARCHITECTURE.md")
    architecture.write_text(drawn_into(architecture.read_text()))
