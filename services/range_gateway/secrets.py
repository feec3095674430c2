"""Authentication of ranges by secrets, each kept as a SHA-256 sum in a file named as the range.

The folder is read at each connection, so a range that is added or removed needs no restart.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NOBODY = "0" * 64


def digest(secret: str) -> str:
    """The SHA-256 sum of a secret, as a file of the folder holds it."""
    return hashlib.sha256(secret.encode()).hexdigest()


class RangeSecrets:
    """`folder` has a file for each range; without one no range is known."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def knows(self, range_id: str, secret: str) -> bool:
        """Whether `secret` is that of `range_id`. Takes the same time for a range that does not exist."""
        expected = _NOBODY
        if self._folder is not None and _NAME.fullmatch(range_id):
            try:
                expected = (self._folder / range_id).read_text().strip()
            except OSError:
                expected = _NOBODY
        return hmac.compare_digest(digest(secret), expected)
