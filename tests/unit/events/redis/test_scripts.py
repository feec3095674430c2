"""The Lua scripts as files."""

from __future__ import annotations

from importlib.resources import files

from events.redis.scripts import NAMES, source


def test_every_script_is_loaded_when_one_is_missing() -> None:
    """The list of scripts is what lies in the folder: a range's agent can load none itself."""
    there = {entry.name.removesuffix(".lua") for entry in (files("events.redis") / "lua").iterdir()}
    assert there - {"prelude"} == set(NAMES)
    assert all(source(name).startswith("#!lua") for name in NAMES)
