"""A page of a list, over HTTP and with `--json`."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """`items`, and in `next` the cursor of the following page; None on the last one."""

    items: list[T]
    next: str | None = None
