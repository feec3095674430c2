"""Tokens for the HTTP API: random, named, and kept as hashes."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

import msgspec

from services.errors import BadInput

TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, and the line `NAME ROLE SHA256` by which the API knows it."""

    name: str
    role: str
    token: str
    line: str


def new_token(name: str, role: str) -> NewToken:
    """Raises BadInput for a name that cannot be one."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"name {name!r} is not allowed: a letter or digit, then letters, digits and _ . @ -, at most 64 characters"
        )
    token = secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    return NewToken(name=name, role=role, token=token, line=f"{name} {role} {digest}")


def add_token(path: Path, token: NewToken) -> None:
    """Append its line; a new file is for its owner alone. Raises BadInput where that cannot be written."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            content = file.read()
            begin = b"\n" if content and not content.endswith(b"\n") else b""
            file.write(begin + f"{token.line}\n".encode())
    except OSError as problem:
        raise BadInput(f"{path} cannot be written: {problem.strerror}") from problem
