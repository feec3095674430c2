"""How often one range may have one image exported anew: pure accounting, the time is given.

An export reads the image and writes it to the host's disk. An honest range needs up to three archives of an image in a
row: its config alone, the layers that it lacks, and everything where the engine took neither; and one more for each
time it was cut off for long. A range that only asks gets what it asks for ever more slowly.
"""

from __future__ import annotations

from collections import OrderedDict

from services.core.ranges.limits import Bucket

#: In a row, and then one in so many seconds.
BURST = 4
SECONDS = 60.0
#: So many pairs of range and image are remembered: more than a host has at work in the time that a burst takes to grow.
_REMEMBERED = 10_000


class ExportPace:
    """The accounts of all ranges, one for each image. Times are monotonic seconds."""

    def __init__(self, *, burst: int = BURST, seconds: float = SECONDS, remembered: int = _REMEMBERED) -> None:
        self._burst = burst
        self._seconds = seconds
        self._remembered = remembered
        self._accounts: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def begin(self, range_id: str, image_id: str, now: float) -> float:
        """Seconds until an export may begin for this range (0: now, and it is counted)."""
        account = self._accounts.setdefault((range_id, image_id), Bucket(1 / self._seconds, self._burst))
        self._accounts.move_to_end((range_id, image_id))
        if len(self._accounts) > self._remembered:
            self._accounts.popitem(last=False)
        return account.try_spend(1, now)

    def take_back(self, range_id: str, image_id: str) -> None:
        """An export that was counted came to nothing through no fault of the range's."""
        account = self._accounts.get((range_id, image_id))
        if account is not None:
            account.level = min(self._burst, account.level + 1)
