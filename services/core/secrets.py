"""Which fields of a structure are secret, and what of them may be shown."""

from __future__ import annotations

import re
from typing import Any, get_args

from msgspec import Meta
from msgspec.structs import FieldInfo

#: Marks a field: `Annotated[str, SECRET]`.
SECRET = Meta(extra={"secret": True})

_PASSWORD_IN_URL = re.compile(r"(://[^\s/:@]*:)[^\s@]*(@)")


def is_secret(field: FieldInfo) -> bool:
    """Whether the field was marked with SECRET."""
    return any(isinstance(part, Meta) and (part.extra or {}).get("secret", False) for part in get_args(field.type))


def without_password(url: str) -> str:
    """The same URL with the password masked, for logs and people."""
    return _PASSWORD_IN_URL.sub(r"\1***\2", url)


def shown(field: FieldInfo, value: Any) -> Any:
    """`value` as a person may see it: a secret URL without its password, any other secret masked."""
    if not is_secret(field) or not value:
        return value
    return without_password(value) if "://" in str(value) else "***"
