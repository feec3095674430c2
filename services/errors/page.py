"""docs/errors.md, drawn from the register of errors."""

from __future__ import annotations

from services.errors.register import REGISTER, ErrorEntry

_HEAD = """# Error codes

Drawn from `services/errors/register.py` by `scripts/draw-reference`; a test holds it against the code. The same code
stands in `application/problem+json` (HTTP) and in the failures that events and records carry, and decides the command
line's exit status. The message beside it says what failed, on what, and why. *Retry*: another try can help without
anybody changing anything.

A code without an HTTP status is never the answer to a request: it says why an image of a deployment failed.

| code | meaning | HTTP | exit | retry | what to do |
|---|---|---|---|---|---|
"""
_TAIL = """
Other exit statuses of the command line: 0 done; 1 something unexpected, or `doctor` found something wrong; 130 Ctrl-C.
`verify` ends with 5 when a range has not what it should have.
"""


def page() -> str:
    """The whole document."""
    return _HEAD + "".join(map(_row, REGISTER.values())) + _TAIL


def _row(entry: ErrorEntry) -> str:
    status = "–" if entry.http_status is None else str(entry.http_status)
    retry = "yes" if entry.retryable else "no"
    return f"| `{entry.code}` | {entry.title} | {status} | {entry.exit_status} | {retry} | {entry.advice} |\n"
