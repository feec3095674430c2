"""What is remembered of layers between pushes: the form each has in the registry, and where it was seen.

Forms are facts, written once (`services.core.codecs`). Places are hints: a repository may have been deleted since, so
each is tried, never believed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from events.bus import BusError, IndexWrite, Outcome, Record, RecordConflict, RecordWrite, Speaker
from services.core.codecs import LayerForm, form_key, places_key

_PLACES_TRIED = 3
_NOTES = 10_000


class LayerForms:
    """Reads and writes through the `Speaker`. Hints are left out while Redis is away, forms raise its error."""

    def __init__(self, *, speaker: Speaker, prefix: str) -> None:
        self._speaker = speaker
        self._prefix = prefix
        self._noted: dict[str, str] = {}

    async def known(self, diff_ids: Sequence[str]) -> dict[str, LayerForm]:
        """The forms that are fixed already."""
        records = await self._speaker.load_many([form_key(self._prefix, diff_id) for diff_id in diff_ids])
        found = zip(diff_ids, records, strict=True)
        return {diff_id: _form(record) for diff_id, record in found if record is not None}

    async def fix(self, diff_id: str, form: LayerForm) -> LayerForm:
        """Fix a layer's form; returns the one that holds, which is somebody else's if they came first."""
        key = form_key(self._prefix, diff_id)
        try:
            await self._speaker.commit(Outcome(records=(RecordWrite(key, msgspec.json.encode(form), expected=0),)))
        except RecordConflict:
            record = await self._speaker.load(key)
            return form if record is None else _form(record)
        return form

    async def measured(self, diff_id: str, form: LayerForm, *, replaces: str | None) -> LayerForm:
        """Add digest and size to a fixed form; the first to do so wins, the form that holds is returned.

        replaces  the digest that the record had when its blob was looked for in vain, None if it had none
        """
        key = form_key(self._prefix, diff_id)
        record = await self._speaker.load(key)
        current = None if record is None else _form(record)
        if current is not None and current.digest != replaces:
            return current
        if current is not None and current.digest == form.digest:
            return current
        revision = 0 if record is None else record.revision
        try:
            await self._speaker.commit(
                Outcome(records=(RecordWrite(key, msgspec.json.encode(form), expected=revision),))
            )
        except RecordConflict:
            record = await self._speaker.load(key)
            return form if record is None else _form(record)
        return form

    async def places(self, diff_id: str, *, but: str) -> list[str]:
        """Repositories that may hold the layer, the one seen last first, without `but`."""
        noted = self._noted.get(diff_id)
        try:
            seen = await self._speaker.members(places_key(self._prefix, diff_id))
        except BusError:
            seen = []
        latest = dict.fromkeys([*([noted] if noted else []), *reversed(seen)])
        return [repository for repository in latest if repository != but][:_PLACES_TRIED]

    def note(self, diff_id: str, repository: str) -> None:
        """Remember a place in this process at once; `seen` tells the others when the push has ended well."""
        self._noted.pop(diff_id, None)
        self._noted[diff_id] = repository
        if len(self._noted) > _NOTES:
            del self._noted[next(iter(self._noted))]

    def noted(self, diff_id: str) -> bool:
        """Whether this process has lately seen the layer somewhere in the registry."""
        return diff_id in self._noted

    def seen(self, diff_ids: Sequence[str], repository: str) -> Outcome:
        """To be committed with the push's outcome: these layers are in `repository`."""
        now = time.time()
        return Outcome(
            index=tuple(
                IndexWrite(places_key(self._prefix, diff_id), repository, now) for diff_id in dict.fromkeys(diff_ids)
            )
        )


def _form(record: Record) -> LayerForm:
    return msgspec.json.decode(record.value, type=LayerForm)
