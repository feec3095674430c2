"""Record of the layers that a range's engine was given, and for which transfers: a file in the engine's data folder.

It goes with the engine's data: an engine that begins with nothing knows of nothing. A transfer that was cut off stays
open until it is handled again, so that none of its folders is given back under its hands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from events.malformed import MALFORMED

NAME = "cyroid-mounted-layers.json"


class PlacedLayers(msgspec.Struct, frozen=True, kw_only=True):
    """`grants`: the transfer each folder was last shown for; `open`: the folders of each transfer under way."""

    grants: dict[str, str] = {}
    open: dict[str, tuple[str, ...]] = {}

    def accepted(self, transfer_id: str, names: Iterable[str]) -> PlacedLayers:
        """A copy with a transfer under way that shows these folders."""
        shown = tuple(dict.fromkeys(names))
        return PlacedLayers(
            grants={**self.grants, **dict.fromkeys(shown, transfer_id)}, open={**self.open, transfer_id: shown}
        )

    def settled(self, transfer_id: str) -> PlacedLayers:
        """A copy without that transfer under way."""
        return PlacedLayers(
            grants=self.grants, open={name: shown for name, shown in self.open.items() if name != transfer_id}
        )

    def unused(self, used: Iterable[str]) -> dict[str, str]:
        """The grants of folders that neither the engine uses nor a transfer under way."""
        needed = {*used, *(name for shown in self.open.values() for name in shown)}
        return {name: grant for name, grant in self.grants.items() if name not in needed}

    def without(self, grants: Mapping[str, str]) -> PlacedLayers:
        """A copy without the folders that are still there for exactly these grants."""
        kept = {name: grant for name, grant in self.grants.items() if grants.get(name) != grant}
        return PlacedLayers(grants=kept, open=self.open)


class PlacedLayersFile:
    """The file in the folder `root`. Blocking; one process writes it."""

    def __init__(self, root: Path) -> None:
        self._path = root / NAME

    def read(self) -> PlacedLayers:
        """The record; an empty one where the file is missing or unreadable (the host then keeps its mounts)."""
        with suppress(FileNotFoundError, *MALFORMED):
            return msgspec.json.decode(self._path.read_bytes(), type=PlacedLayers)
        return PlacedLayers()

    def change(self, change: Callable[[PlacedLayers], PlacedLayers]) -> None:
        """Write what `change` makes of it; atomic and durable. Raises OSError."""
        before = self.read()
        after = change(before)
        if after == before:
            return
        scratch = self._path.with_suffix(".new")
        with scratch.open("wb") as file:
            file.write(msgspec.json.encode(after))
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(self._path)
