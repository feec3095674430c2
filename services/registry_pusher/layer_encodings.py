"""Layer encodings remembered between pushes: the encoding of each layer, and in which repository it was found.

Forms are facts, written once (`services.core.images.encodings`). Places are hints: a repository may have been deleted
since, so each is tried, never believed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from events.bus import BusClient, BusError, IndexWrite, Outcome, RecordConflict
from events.records import ABSENT, load_all
from services.core.images.encodings import LayerEncoding, encoding_key, places_key

_PLACES_TRIED = 3
_NOTES = 10_000


class LayerEncodings:
    """Reads and writes through the `BusClient`.

    Hints are left out while Redis is unavailable, forms raise its error.
    """

    def __init__(self, *, bus: BusClient, prefix: str) -> None:
        self._bus = bus
        self._prefix = prefix
        self._noted: dict[str, str] = {}

    async def known(self, diff_ids: Sequence[str]) -> dict[str, LayerEncoding]:
        """The encodings that are fixed already, by diff ID."""
        stored = await load_all(self._bus, [encoding_key(self._prefix, diff_id) for diff_id in diff_ids])
        found = zip(diff_ids, stored, strict=True)
        return {diff_id: form.value for diff_id, form in found if form.value is not None}

    async def fix(self, diff_id: str, form: LayerEncoding) -> LayerEncoding:
        """Fix a layer's encoding. Returns the one that holds, which is another pusher's if that was faster."""
        key = encoding_key(self._prefix, diff_id)
        try:
            await self._bus.commit(Outcome(records=(key.write(form, expected=ABSENT),)))
        except RecordConflict:
            return (await key.load(self._bus)).value or form
        return form

    async def measured(self, diff_id: str, form: LayerEncoding, *, replaces: str | None) -> LayerEncoding:
        """Add digest and size to a fixed form; the first to do so wins, the form that holds is returned.

        replaces  the digest that the record had when its blob was looked for in vain, None if it had none
        """
        key = encoding_key(self._prefix, diff_id)
        stored = await key.load(self._bus)
        current = stored.value
        if current is not None and current.digest != replaces:
            return current
        if current is not None and current.digest == form.digest:
            return current
        try:
            await self._bus.commit(Outcome(records=(key.write(form, expected=stored),)))
        except RecordConflict:
            return (await key.load(self._bus)).value or form
        return form

    async def places(self, diff_id: str, *, but: str) -> list[str]:
        """Repositories that may hold the layer, the one seen last first, without `but`."""
        noted = self._noted.get(diff_id)
        try:
            seen = await self._bus.members(places_key(self._prefix, diff_id))
        except BusError:
            seen = []
        latest = dict.fromkeys([*([noted] if noted else []), *reversed(seen)])
        return [repository for repository in latest if repository != but][:_PLACES_TRIED]

    def note(self, diff_id: str, repository: str) -> None:
        """Remember a place in this process; `seen` tells other processes when the push has ended well."""
        self._noted.pop(diff_id, None)
        self._noted[diff_id] = repository
        if len(self._noted) > _NOTES:
            del self._noted[next(iter(self._noted))]

    def noted(self, diff_id: str) -> bool:
        """Whether this process has seen the layer in the registry lately."""
        return diff_id in self._noted

    def seen(self, diff_ids: Sequence[str], repository: str) -> Outcome:
        """To be committed with the push's outcome: these layers are in `repository`."""
        now = time.time()
        return Outcome(
            index=tuple(
                IndexWrite(places_key(self._prefix, diff_id), repository, now) for diff_id in dict.fromkeys(diff_ids)
            )
        )
