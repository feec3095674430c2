"""Malformed bytes: every error that a decoder of JSON or MessagePack raises for what somebody else wrote.

Beside its own error, msgspec lets out Python's where text is no Unicode, or where a document is nested too deeply.
"""

from __future__ import annotations

import msgspec

#: For `except` around each decoding of foreign bytes; `tests/fuzz/test_register.py` looks for one without it.
MALFORMED = (msgspec.DecodeError, UnicodeError, RecursionError)
