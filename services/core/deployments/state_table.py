"""State table of an image in a deployment: every transition, and the diagram of them.

`services.core.deployments.transitions` makes no move that is not in the table (`check_move` raises), and
a test holds `docs/deployment-states.md` against `page()` and ARCHITECTURE.md against `drawing()`.
`scripts/draw-states` writes both anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.core.deployments.deployment import ACTIVE, ENDED, State

Cause = Literal[
    "requested",
    "not in the registry",
    "in the registry",
    "registry unavailable",
    "host engine and registry unavailable",
    "unknown or refused",
    "pushed",
    "push failed or stalled",
    "slot free",
    "slot free, by tar",
    "slot free, to be mounted",
    "layers mounted",
    "layers not mounted",
    "agent asks for tar",
    "engine reports content",
    "failed, tries left",
    "failed permanently",
    "no agent within the grace period",
    "wrong platform",
    "cancelled",
    "retry requested",
    "range recreated",
    "range contested",
    "commands refused",
]


@dataclass(frozen=True, slots=True)
class Move:
    """One transition: from a state to another, and its cause. `before` None: the image's first state."""

    before: State | None
    cause: Cause
    after: State


_WORKING: tuple[State, ...] = ("mounting", "pulling", "falling_back", "loading")
_OPEN: tuple[State, ...] = ("resolving", "pushing", "queued", *_WORKING)


def _table() -> tuple[Move, ...]:
    moves = [
        Move(None, "requested", "resolving"),
        Move("resolving", "in the registry", "queued"),
        Move("resolving", "registry unavailable", "queued"),
        Move("resolving", "not in the registry", "pushing"),
        Move("resolving", "push failed or stalled", "queued"),
        Move("resolving", "host engine and registry unavailable", "resolving"),
        Move("resolving", "unknown or refused", "failed"),
        Move("pushing", "pushed", "queued"),
        Move("pushing", "registry unavailable", "queued"),
        Move("pushing", "push failed or stalled", "queued"),
        Move("pushing", "failed permanently", "failed"),
        Move("pushing", "no agent within the grace period", "failed"),
        Move("queued", "slot free", "pulling"),
        Move("queued", "slot free, by tar", "falling_back"),
        Move("queued", "slot free, to be mounted", "mounting"),
        Move("mounting", "layers mounted", "pulling"),
        Move("mounting", "layers not mounted", "pulling"),
        Move("queued", "no agent within the grace period", "failed"),
        Move("ready", "range recreated", "resolving"),
        Move("ready", "range recreated", "failed"),
        Move("ready", "range contested", "resolving"),
        Move("failed", "retry requested", "resolving"),
        Move("cancelled", "retry requested", "resolving"),
    ]
    for state in _WORKING:
        if state != "mounting":  # the agent does not know of it yet
            moves += [Move(state, "agent asks for tar", "loading"), Move(state, "failed permanently", "failed")]
        moves += [
            Move(state, "failed, tries left", "resolving"),
            Move(state, "no agent within the grace period", "failed"),
            Move(state, "range recreated", "resolving"),
            Move(state, "range recreated", "failed"),
            Move(state, "range contested", "resolving"),
        ]
    moves += [Move(state, "wrong platform", "failed") for state in ("pushing", "queued", *_WORKING)]
    for state in _OPEN:
        moves += [Move(state, "engine reports content", "ready"), Move(state, "cancelled", "cancelled")]
        moves.append(Move(state, "commands refused", "failed"))
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
    """The text of docs/deployment-states.md."""
    working = ", ".join(f"`{state}`" for state in sorted(ACTIVE))
    ended = ", ".join(f"`{state}`" for state in sorted(ENDED))
    rows = [f"| `{move.before or '-'}` | {move.cause} | `{move.after}` |" for move in MOVES]
    return "\n".join(
        [
            "# The states of an image in a deployment",
            "",
            "Generated from `services/core/deployments/state_table.py` by `scripts/draw-states`; a test compares this",
            "page with the code.",
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
