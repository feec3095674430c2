"""Recent looks at hosts: what one had a moment ago is the answer for everybody who began to ask before that.

A deployment to a thousand ranges asks a thousand times for the same images within seconds, and each question costs an
entry in a host's inbox, its engine's answer and the polls for it. An answer counts for an image only if its look began
after the image came into its state: content that was built before a deployment was asked for is never missed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.core.deployments.deployment import ImageState
from services.core.deployments.facts import HostImage

#: An answer is given so long. Its host may be gone, or have another image under the name, by so much.
KEPT = timedelta(seconds=1)
Found = tuple[HostImage | None, str | None]
_Question = tuple[str, str | None, tuple[str, ...]]


class HostFinder(Protocol):
    """Finds images on the engines of hosts."""

    async def find(self, reference: str, image_id: str | None = None, diff_ids: tuple[str, ...] = ()) -> Found:
        """What a host has under this name, or as this content; why that is not known."""

    async def tar_url(self, host: str) -> str | None:
        """The tar server of a host, as ranges reach it; None where it is not known."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found, and when the look began."""

    found: HostImage
    at: datetime


class RecentLooks:
    """The looks of one replica. Only what was found is kept: that a host is away, or has nothing, is asked again."""

    def __init__(self, hosts: HostFinder, clock: Callable[[], datetime]) -> None:
        self._hosts = hosts
        self._clock = clock
        self._kept: OrderedDict[_Question, _Look] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def find(self, image: ImageState) -> Found:
        """What a host has under the image's name, or as the content that is chosen; why that is not known.

        Raises BusError.
        """
        question, now = (image.reference, image.image_id, image.diff_ids), self._clock()
        known = self._kept.get(question)
        if known is not None and image.since < known.at and timedelta(0) <= now - known.at <= KEPT:
            return known.found, None
        found, away = await self._hosts.find(*question)
        if found is not None:
            self._keep(question, _Look(found, now))
        return found, away

    def _keep(self, question: _Question, look: _Look) -> None:
        self._kept[question] = look
        self._kept.move_to_end(question)
        while abs(look.at - next(iter(self._kept.values())).at) > KEPT:
            self._kept.popitem(last=False)
