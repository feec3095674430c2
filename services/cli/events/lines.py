"""Events as one line each, of the bus and of the API alike."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.cli.output import plain

#: Fields of a message that would fill the line without saying much.
_LONG = {"layers", "diff_ids", "held", "token", "registry_token", "images_present"}


def event_line(time: datetime, wire_type: str, subject: str, message: Any, source: str) -> str:
    """A message: local time, type, subject, its short fields as `name=value`, and who published it."""
    moment = time.astimezone().strftime("%H:%M:%S")
    return plain(f"{moment} {wire_type:<28} {subject}  {_summary(message)}  [{source}]")


def letter_line(time: str, letter_id: str, given_up: str, why: str) -> str:
    """A dead letter."""
    return plain(f"{time} dead letter {letter_id}: {given_up}: {why}")


def _summary(message: Any) -> str:
    """The short fields of a message, as `name=value`."""
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(message)
    shown = {name: value for name, value in plain.items() if name not in _LONG | {"type", "reference"}}
    return " ".join(f"{name}={_short(value)}" for name, value in shown.items())


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value[7:19] if value.startswith("sha256:") else value
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return str(value.get("code", "…"))
    if isinstance(value, list | tuple):
        return ",".join(_brief(one) for one in value[:4]) + (",…" if len(value) > 4 else "")
    return str(value)


def _brief(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    references = value.get("references") or ["<none>"]
    name = str(value.get("reference") or references[0])
    how = value.get("how") or (value.get("error") or {}).get("code")
    return f"{name}={how}" if how else name
