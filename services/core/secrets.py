"""Masking of secrets: which fields of a structure are secret, and what of them may be shown."""

from __future__ import annotations

import re
from typing import Any, get_args

from msgspec import Meta
from msgspec.structs import FieldInfo

#: Marks a field: `Annotated[str, SECRET]`.
SECRET = Meta(extra={"secret": True})
#: Marks a field whose URL may hold a secret: `user:password@`, or a parameter such as `password=`.
URL = Meta(extra={"url": True})

#: `user:password@` or `token@` before a host, up to the last `@` of a URL's authority.
_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<info>[^\s\"'/?#]*)@")
#: The same in a setting that is one URL, whose password may hold a `/` that should have been escaped.
_ANY_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)?(?P<info>\S*)@")
#: Secrets among a URL's parameters.
_PARAMETER = re.compile(r"(?i)([?&](?:[a-z_]*password|passwd|token|secret|access_token|api_?key)=)[^&#\s\"']+")


def is_secret(field: FieldInfo) -> bool:
    """Whether the field is, or may hold, a secret. A secret may also come from a file."""
    return _marked(field, "secret") or is_url(field)


def is_url(field: FieldInfo) -> bool:
    """Whether the field was marked with URL."""
    return _marked(field, "url")


def _marked(field: FieldInfo, name: str) -> bool:
    return any(isinstance(part, Meta) and (part.extra or {}).get(name, False) for part in get_args(field.type))


def without_password(text: str) -> str:
    """`text` with the secrets of every URL in it masked, for logs and people; a user's name stays."""
    return _PARAMETER.sub(r"\1***", _USER_INFO.sub(_masked, text))


def _masked(found: re.Match[str]) -> str:
    user, colon, _ = found["info"].partition(":")
    return f"{found['scheme'] or ''}{user}:***@" if colon else f"{found['scheme'] or ''}***@"


def shown(field: FieldInfo, value: Any) -> Any:
    """`value` as a person may see it: a URL without its secrets, any other secret masked."""
    if is_url(field) and value:
        return _PARAMETER.sub(r"\1***", _ANY_USER_INFO.sub(_masked, str(value)))
    return "***" if is_secret(field) and value else value
