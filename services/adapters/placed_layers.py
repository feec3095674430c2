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
    """`grants`: the transfer each folder was last shown for; `earlier`: those it was shown for before that and that
    were not given back; `open`: the folders of each transfer under way.
    """

    grants: dict[str, str] = {}
    open: dict[str, tuple[str, ...]] = {}
    earlier: dict[str, tuple[str, ...]] = {}

    def accepted(self, transfer_id: str, names: Iterable[str]) -> PlacedLayers:
        """A copy with a transfer under way that shows these folders."""
        shown = tuple(dict.fromkeys(names))
        earlier = {
            name: tuple(one for one in self._grants_of(name) if one != transfer_id)
            for name in shown
            if name in self.grants
        }
        return PlacedLayers(
            grants={**self.grants, **dict.fromkeys(shown, transfer_id)},
            open={**self.open, transfer_id: shown},
            earlier=_some({**self.earlier, **earlier}),
        )

    def settled(self, transfer_id: str) -> PlacedLayers:
        """A copy without that transfer under way."""
        still = {name: shown for name, shown in self.open.items() if name != transfer_id}
        return PlacedLayers(grants=self.grants, open=still, earlier=self.earlier)

    def unused(self, used: Iterable[str]) -> dict[str, str]:
        """One grant each, to be given back, of folders that neither the engine uses nor a transfer under way; and of
        folders in use one that is not needed as there is a later one.
        """
        needed = {*used, *(name for shown in self.open.values() for name in shown)}
        given = {name: self._grants_of(name)[0] for name in self.grants if name not in needed}
        superseded = {
            name: grant
            for name in self.earlier.keys() & needed
            for grant in self.earlier[name]
            if grant not in self.open
        }
        return {**superseded, **given}

    def without(self, grants: Mapping[str, str]) -> PlacedLayers:
        """A copy without these grants, by folder, and without the folders that have none left."""
        left = {name: [one for one in self._grants_of(name) if one != grants.get(name)] for name in self.grants}
        return PlacedLayers(
            grants={name: kept[-1] for name, kept in left.items() if kept},
            open=self.open,
            earlier=_some({name: tuple(kept[:-1]) for name, kept in left.items()}),
        )

    def _grants_of(self, name: str) -> tuple[str, ...]:
        """The grants of a folder, the last one last."""
        return (*self.earlier.get(name, ()), self.grants[name])


def _some(grants: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Without the folders that have none."""
    return {name: those for name, those in grants.items() if those}


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
