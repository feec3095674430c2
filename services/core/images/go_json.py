"""JSON as Go programs write it: `null` stands for an empty slice, map or string, and decodes as a field's default.

Go's encoder writes a nil slice or map as `null`, and its decoder leaves a field as it is where it meets `null`
(encoding/json, Unmarshal). So `"layers": null`, `"diff_ids": null` or `"annotations": null` in a manifest, config,
index or archive mean the same as a field that is not there.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode(content: bytes | str, type_: type[T]) -> T:
    """Decode `content` into `type_`, with `null` members left out where the type does not allow them.

    A required field that is `null` counts as missing; `null` as an element of an array stays what it is. Raises
    msgspec.DecodeError for anything that does not fit, also for what is nested too deeply.
    """
    try:
        try:
            return msgspec.json.decode(content, type=type_)
        except msgspec.ValidationError:
            return msgspec.convert(_without_nulls(msgspec.json.decode(content)), type_)
    except RecursionError as problem:
        raise msgspec.DecodeError("the JSON is nested too deeply") from problem
    except UnicodeDecodeError as problem:
        raise msgspec.DecodeError(f"the JSON is not UTF-8: {problem.reason}") from problem


def _without_nulls(value: object) -> object:
    """A copy of a decoded document without members that are None."""
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(element) for element in value]
    return value
